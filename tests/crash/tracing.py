"""Runs a function in a forked child under strace: to list its file system calls, or to make the n-th of one kind go wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILE_CALLS = "trace=%file,%desc"
FAILED = 3
"""Exit code of a child whose function raised what a full or broken disk raises."""


@dataclass(frozen=True)
class Call:
    """One system call: the `occurrence`-th of its name in the child's life."""

    name: str
    occurrence: int
    text: str


def why_not_traceable() -> str | None:
    """A reason why processes cannot be traced here, or None."""
    if not sys.platform.startswith("linux"):
        return "strace exists on Linux only"
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    sleeper = subprocess.Popen(["sleep", "30"])
    try:
        result = subprocess.run(
            ["timeout", "--signal=INT", "1", "strace", "-p", str(sleeper.pid)], capture_output=True, text=True, check=False
        )
    finally:
        sleeper.kill()
        sleeper.wait()
    return None if "attached" in result.stderr else f"strace may not attach to a process: {result.stderr.strip()}"


def run_traced(action: Callable[[], object], output: Path, *options: str) -> int:
    """Exit code of a forked child that ran `action` under strace: negative for a signal, FAILED for a broken disk."""
    child = os.fork()
    if child == 0:
        _live(action)
    os.waitpid(child, os.WUNTRACED)
    tracer = subprocess.Popen(
        ["strace", "-y", "-s", "400", "-o", str(output), *options, "-p", str(child)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    assert "attached" in line, line
    os.kill(child, signal.SIGCONT)
    status = _wait(child, seconds=60)
    tracer.communicate()
    return os.waitstatus_to_exitcode(status)


def _live(action: Callable[[], object]) -> None:
    """The child's whole life. It stops itself until the tracer is there."""
    from safetensors import SafetensorError

    code = 1
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        action()
        code = 0
    except (OSError, SafetensorError):
        code = FAILED
    finally:
        os._exit(code)


def _wait(child: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"the traced child did not end within {seconds} seconds")


def calls_touching(folder: Path, trace: Path) -> list[Call]:
    """The calls in a trace made with `-f` that name a path below `folder`. All must come from one thread."""
    counts: Counter[str] = Counter()
    calls: list[Call] = []
    threads = set()
    for line in trace.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\((.*)", line)
        if found is None:
            continue
        thread, name, text = found.groups()
        counts[name] += 1
        if str(folder) in text:
            threads.add(thread)
            calls.append(Call(name, counts[name], text))
    assert len(threads) == 1, f"{len(threads)} threads touch the run folder, so calls cannot be counted"
    return calls
