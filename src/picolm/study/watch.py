"""How far the runs of a stage are, from the files of events that workers append to."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Watch:
    """Reads what is new in the files of events."""

    steps: dict[str, int]
    """Run -> steps it takes."""
    running: list[str] = field(default_factory=list)
    """Runs that began and have not ended."""
    ended_runs: list[str] = field(default_factory=list)
    _files: dict[str, Path] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)
    _made: dict[str, int] = field(default_factory=dict)
    _cpu_seconds: list[float] = field(default_factory=list)
    """Of the runs that ended: how long they last on a busy machine says little about how they compare with a start."""
    _told: int = 0

    def follow(self, job: str, path: Path) -> None:
        """Look at one more file from now on."""
        self._files[job] = path
        self._offsets[job] = 0

    def look(self) -> None:
        """Take in everything that is new."""
        for job, path in self._files.items():
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(self._offsets[job])
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[job] += len(whole)
            for line in whole.splitlines():
                self._take(json.loads(line))

    def _take(self, event: dict[str, object]) -> None:
        run = str(event["run"])
        if event["event"] == "begin":
            self.running.append(run)
        elif event["event"] == "step":
            self._made[run] = int(str(event["step"]))
        elif event["event"] == "end":
            self._made[run] = self.steps.get(run, 0)
            self._cpu_seconds.append(float(str(event["cpu_seconds"])))
            self.running = [other for other in self.running if other != run]
            self.ended_runs.append(run)

    @property
    def steps_made(self) -> int:
        """Training steps of this stage, over all runs."""
        return sum(self._made.values())

    def new_ends(self) -> list[str]:
        """Runs that ended since the last call."""
        found = self.ended_runs[self._told :]
        self._told = len(self.ended_runs)
        return found

    def runs_per_job(self, waiting: int, slots: int, job_seconds: float, most: int) -> int:
        """How many runs the next process takes: one until it is known how long they last, then as many as are short."""
        if not self._cpu_seconds:
            return 1
        fitting = int(job_seconds / max(statistics.median(self._cpu_seconds), 1e-3))
        fair = -(-waiting // max(slots, 1))
        return max(1, min(fitting, fair, most))

    @staticmethod
    def rest(seconds: float) -> None:
        """Wait a little."""
        time.sleep(seconds)
