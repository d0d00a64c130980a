"""Where runs are carried out. A job is an argument list and a JSON file; here it becomes a process of this machine.

A back-end for a cluster has the same four questions to answer: how many at once, start one, which have ended, stop all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from picolm.records import durable


@dataclass(frozen=True)
class Job:
    """One piece of work for one process."""

    name: str
    argv: tuple[str, ...]
    """What to start; the path of the JSON file is appended."""
    payload: dict[str, Any]
    """What the process reads: JSON values only."""
    file: Path
    """Where the payload is written."""
    log: Path
    """Where standard output and error go."""
    threads: int


class Ended(NamedTuple):
    """A job that is over."""

    name: str
    exit_code: int


class Executor(Protocol):
    """A place where jobs run."""

    def slots(self) -> int:
        """How many jobs may run at once."""

    def submit(self, job: Job) -> None:
        """Start a job. The payload is on disk before the process begins."""

    def poll(self) -> list[Ended]:
        """The jobs that ended since the last call; does not wait."""

    def stop(self, seconds: float) -> None:
        """Ask all jobs to save and end, and wait at most so long."""


@dataclass
class LocalProcesses:
    """Processes of this machine, each with a fixed number of threads. An `Executor`."""

    threads: int
    memory_bytes: int
    """What one job takes, at most."""
    most: int | None = None
    """Jobs at once, if a person said so."""
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def slots(self) -> int:
        """As many as cores and free memory allow, at least one; or as many as a person said."""
        if self.most is not None:
            return self.most
        by_memory = available_memory() // self.memory_bytes if self.memory_bytes else 1
        return max(1, min(usable_cores() // self.threads, by_memory))

    def submit(self, job: Job) -> None:
        durable.write_json(job.file, job.payload)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        fixed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.threads))
        with job.log.open("ab") as log:
            self._running[job.name] = subprocess.Popen(
                [*job.argv, str(job.file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **fixed, "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,
            )

    def poll(self) -> list[Ended]:
        ended = [Ended(name, code) for name, process in self._running.items() if (code := process.poll()) is not None]
        for job in ended:
            del self._running[job.name]
        return ended

    def stop(self, seconds: float) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that are free for new processes; where the system does not tell, 8 GiB."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 * 1024**3
