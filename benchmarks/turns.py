"""Contenders take turns: each sits warm in a process of its own, and every round goes in the opposite order of the one before.

What a worker says on standard output: `ready` once it is warm; for every line on standard input the elapsed and the processor
seconds of a turn; at the end of input its peak memory in MiB. Nothing runs beside a turn, so a machine that slows down slows all.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Contender:
    """What one worker measured."""

    elapsed: list[float] = field(default_factory=list)
    """Seconds of each turn."""
    processor: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    @property
    def seconds(self) -> float:
        return statistics.median(self.elapsed)

    @property
    def processor_seconds(self) -> float:
        return statistics.median(self.processor)


def take_turns(commands: Mapping[str, Sequence[str]], rounds: int, *, logs: Path, **options: Any) -> dict[str, Contender]:
    """Start a worker for each command, let them take turns, end them. `logs`: folder for what they say on standard error.

    `options` go to `subprocess.Popen`. SystemExit with the end of its log if a worker ends early.
    """
    processes = {}
    try:
        for name, command in commands.items():
            with _log_of(name, logs).open("w") as log:
                processes[name] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, **options
                )
        for name, process in processes.items():
            if _line(name, process, logs) != "ready":
                raise SystemExit(f"{name} did not say that it is ready")
        contenders = {name: Contender() for name in commands}
        for number in range(rounds):
            for name in contenders if number % 2 == 0 else reversed(contenders):
                process = processes[name]
                process.stdin.write("go\n")
                process.stdin.flush()
                elapsed, busy = map(float, _line(name, process, logs).split())
                contenders[name].elapsed.append(elapsed)
                contenders[name].processor.append(busy)
        for name, process in processes.items():
            process.stdin.close()
            contenders[name].peak_mib = float(_line(name, process, logs))
            process.wait()
        return contenders
    finally:
        for process in processes.values():
            process.kill()


def _line(name: str, process: subprocess.Popen, logs: Path) -> str:
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit(f"{name} ended: {process.args}\n{_log_of(name, logs).read_text()[-2000:]}")
    return line


def _log_of(name: str, logs: Path) -> Path:
    return logs / f"{name.replace(' ', '_').replace(',', '')}.log"
