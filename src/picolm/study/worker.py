"""Trains some runs of a study one after another in a process of its own: `python -m picolm.study.worker JOB.json`.

The job says everything; nothing is asked of the study's files. What one run does wrong does not touch the next. Exit code 75:
asked to stop; repeated, the same job goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.records.studydir import StudyDirectory
from picolm.study.receipt import write_receipt

BUSY_SECONDS = 60.0
"""How long a run that another process still writes is waited for: a worker whose study was killed needs a moment to notice."""
EVENT_SECONDS = 0.3
"""Least time between two reports of progress."""


class EventWriter:
    """An observer that appends to the job's file of events: how far which run is."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._last = 0.0

    def row(self, row: dict[str, Any]) -> None:
        """The log has it."""

    def advance(self, step: int) -> None:
        now = time.monotonic()
        if now - self._last >= EVENT_SECONDS:
            self._last = now
            self.tell("step", step=step)

    def say(self, sentence: str) -> None:
        print(f"{self._run}: {sentence}", flush=True)

    def tell(self, event: str, **facts: Any) -> None:
        """One line of the file, in a single write."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "run": self._run, **facts}) + "\n")


def main(job_file: Path) -> int:
    """Carry out a job; the exit code: 0 done (also if runs failed: their receipts say so), 75 asked to stop."""
    from picolm.train.stop import STOPPED_EXIT_CODE

    job = json.loads(job_file.read_text(encoding="utf-8"))
    _use_threads(job["threads"])
    if job["watch_parent"]:
        _stop_with_parent(os.getppid())
    directory = StudyDirectory(Path(job["study_folder"]), Path(job["definition"]))
    for cell in job["cells"]:
        observer = EventWriter(Path(job["events"]), cell["run"])
        begun = time.process_time()
        observer.tell("begin")
        if not _run_cell(directory, job, cell, observer):
            return STOPPED_EXIT_CODE
        observer.tell("end", cpu_seconds=time.process_time() - begun)
    return 0


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _run_cell(directory: StudyDirectory, job: dict[str, Any], cell: dict[str, Any], observer: EventWriter) -> bool:
    """Train, analyse, write the receipt; False if the run was asked to stop and goes on another time."""
    begun = time.perf_counter()
    status, reason = "complete", ""
    run = directory.run(cell["run"])
    try:
        if not _train(job, cell, observer):
            return False
        _analyse(run, job["analyses"])
    except KeyboardInterrupt:
        return False
    except PicoError as error:
        status, reason = ("diverged" if _gave_up(run, cell) else "crashed"), error.message
    except Exception as error:
        status, reason = "crashed", f"{type(error).__name__}: {error}"
    if reason:
        observer.say(f"{status}: {reason}")
    seconds = time.perf_counter() - begun
    write_receipt(directory, cell["run"], status=status, reason=reason, lock=job["lock"], sort=cell["content"], seconds=seconds)
    return True


def _train(job: dict[str, Any], cell: dict[str, Any], observer: EventWriter) -> bool:
    from picolm.base.config import apply_overrides
    from picolm.train.config import parse_config
    from picolm.train.identity import Membership
    from picolm.train.lock import RunBusy
    from picolm.train.train import run_training

    place = [f"checkpointing.runs_dir={json.dumps(job['runs_dir'])}", f"checkpointing.run_name={json.dumps(cell['run'])}"]
    source = f"{job['study']}: {cell['run']}"
    config = parse_config(apply_overrides(job["base"], [*cell["overrides"], *place]), source, default_name=cell["run"])
    member = Membership(study=job["study"], variant=cell["variant"], seed=cell["seed"], lock=job["lock"])
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return run_training(config, observer, member=member).complete
        except RunBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _analyse(run: RunDirectory, analyses: dict[str, str]) -> None:
    """The analyses that the measures need; what is there already is not computed again."""
    for name, reference in analyses.items():
        from picolm.analyze.config import load_analysis
        from picolm.analyze.engine import analyze_run

        analyze_run(run, load_analysis(reference).model_copy(update={"analysis_name": name}))


def _gave_up(run: RunDirectory, cell: dict[str, Any]) -> bool:
    """Whether the run ended because too many updates were not finite."""
    skipped = len(list(run.nonfinite_file(0).parent.glob("step_*.json")))
    return skipped > int(cell["max_skipped_updates"])


def _stop_with_parent(parent: int) -> None:
    """Ask this process to stop once the process that started it is gone: nobody would collect what it does."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
