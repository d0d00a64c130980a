"""`pico study run`: carries out the matrix of a study. Killed anywhere and repeated, it ends with the same tables.

Stages: the tuning seeds and the values picked from them; the runs that count, round by round over the seeds so that what is
there is always paired; then the reserve seeds, if the declared second look needs them.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from picolm.base.config import apply_overrides
from picolm.base.errors import PicoError
from picolm.records.studydir import StudyDirectory
from picolm.study.executor import Executor, Job
from picolm.study.lock import StudyLock
from picolm.study.matrix import Cell, cells, read_picks
from picolm.study.receipt import hashes_of, read_receipt
from picolm.study.tuning import pick_values
from picolm.study.watch import Watch
from picolm.train.lock import RunBusy, RunLock

JOB_SECONDS = 60.0
"""Short runs share a process up to so long together: starting one takes seconds."""
MOST_RUNS_OF_A_JOB = 8
STOP_SECONDS = 60.0
"""How long runs have to save what they did when the study is stopped."""


class StudyObserver(Protocol):
    """Who is told how far the matrix is: a terminal, a test, nobody."""

    def begin(self, runs: int, steps: int) -> None:
        """A stage of so many runs and training steps begins."""

    def advance(self, steps: int, running: Sequence[str]) -> None:
        """So many steps of the stage are made, in runs that ended and in those that are on."""

    def ended(self, run: str, status: str, reason: str, done: int, runs: int) -> None:
        """A run ended; `done` of `runs` of the stage have."""

    def say(self, sentence: str) -> None:
        """Something a person wants to know."""


@dataclass(frozen=True)
class RunOutcome:
    """How a call of `run_study` ended."""

    complete: bool
    """Whether everything that is needed has ended."""
    ended: int
    """Runs that are complete or diverged."""
    failed: tuple[str, ...]
    """`run: reason` of those that crashed."""


@dataclass
class Stage:
    """Carries out some places of the matrix: what is missing, several at once."""

    directory: StudyDirectory
    lock: StudyLock
    executor: Executor
    observer: StudyObserver
    steps: dict[str, int]
    """Run -> steps it takes."""
    poll_seconds: float = 0.2
    may_write: Callable[[], None] = lambda: None
    attempts: Counter[str] = field(default_factory=Counter)

    def carry_out(self, wanted: Sequence[Cell]) -> dict[str, str]:
        """Run what has not ended; the failures: run -> reason."""
        waiting = missing(self.directory, self.lock, wanted)
        total = len({cell.run.name for cell in wanted})
        self.observer.begin(len(waiting), sum(self.steps[cell.run.name] for cell in waiting))
        watch = Watch(self.steps)
        jobs: dict[str, list[Cell]] = {}
        numbers = itertools.count()
        failures: dict[str, str] = {}
        while waiting or jobs:
            self.may_write()
            while waiting and len(jobs) < self.executor.slots():
                size = watch.runs_per_job(len(waiting), self.executor.slots(), JOB_SECONDS, MOST_RUNS_OF_A_JOB)
                batch, waiting = waiting[:size], waiting[size:]
                job = self._job(f"{batch[0].run.name}-{next(numbers)}", batch)
                watch.follow(job.name, self.directory.job_events(job.name))
                self.executor.submit(job)
                jobs[job.name] = batch
            for ended in self.executor.poll():
                waiting += self._collect(jobs.pop(ended.name), ended.exit_code, failures, watch)
            watch.look()
            self._tell(watch, total - len(waiting) - sum(map(len, jobs.values())), total)
            if waiting or jobs:
                watch.rest(self.poll_seconds)
        return failures

    def _tell(self, watch: Watch, done: int, total: int) -> None:
        for run in watch.new_ends():
            receipt = read_receipt(self.directory, run) or {"status": "crashed", "reason": "no receipt"}
            self.observer.ended(run, receipt["status"], receipt["reason"], len(watch.ended_runs), total)
        self.observer.advance(watch.steps_made, watch.running)

    def _collect(self, batch: list[Cell], exit_code: int, failures: dict[str, str], watch: Watch) -> list[Cell]:
        """What of a job is to be done again: runs it did not come to, and a crashed one as often as is declared."""
        watch.look()
        again: list[Cell] = []
        culprit_found = False
        for cell in batch:
            name = cell.run.name
            receipt = read_receipt(self.directory, name)
            if receipt is not None and receipt["status"] != "crashed" and receipt["content"] == cell.content:
                failures.pop(name, None)
                continue
            if receipt is None and culprit_found:
                again.append(cell)  # the process died before it came to this one
                continue
            culprit_found = culprit_found or receipt is None
            reason = receipt["reason"] if receipt is not None else f"its process ended with exit code {exit_code}"
            failures[name] = reason
            self.attempts[name] += 1
            failing = self.lock.config.failures
            if failing.crashed == "rerun_same_seed" and self.attempts[name] <= failing.reruns:
                self.observer.say(f"{name} crashed and is repeated: {reason}")
                again.append(cell)
        return again

    def _job(self, name: str, batch: list[Cell]) -> Job:
        threads = self.lock.config.execution.threads
        directory = self.directory
        directory.job_events(name).unlink(missing_ok=True)
        payload = {
            "study": self.lock.study,
            "lock": self.lock.hash,
            "study_folder": str(directory.path),
            "definition": str(directory.definition),
            "runs_dir": str(directory.runs),
            "events": str(directory.job_events(name)),
            "threads": threads,
            "watch_parent": True,
            "base": self.lock.base,
            "analyses": analysis_files(directory, self.lock),
            "cells": [_payload(self.lock, cell) for cell in batch],
        }
        argv = (sys.executable, "-m", "picolm.study.worker")
        return Job(name, argv, payload, directory.job(name), directory.job_log(name), threads)


def _payload(lock: StudyLock, cell: Cell) -> dict[str, Any]:
    skipped = lock.variants[cell.variant].config["training.max_skipped_updates"]
    return {
        "run": cell.run.name,
        "variant": cell.variant,
        "seed": cell.seed,
        "overrides": list(cell.overrides),
        "content": cell.content,
        "max_skipped_updates": skipped,
    }


def analysis_files(directory: StudyDirectory, lock: StudyLock) -> dict[str, str]:
    """Analysis -> its file as seen from the working directory, or the name of one that comes along."""
    found = {}
    for name, reference in lock.config.analyses.items():
        path = directory.beside_definition(reference)
        found[name] = str(path) if path.is_file() else reference
    return found


def missing(directory: StudyDirectory, lock: StudyLock, wanted: Sequence[Cell]) -> list[Cell]:
    """The places whose run has not ended, or was made from other settings, each run once, in order."""
    analyses = set(lock.config.analyses)
    found: dict[str, Cell] = {}
    for cell in wanted:
        receipt = read_receipt(directory, cell.run.name)
        ended = receipt is not None and receipt["status"] != "crashed" and receipt["content"] == cell.content
        if ended and (receipt is None or receipt["status"] == "diverged" or analyses <= set(cell.run.analysis_names())):
            continue
        if ended and receipt is not None and receipt["hashes"] != hashes_of(cell.run):
            raise PicoError(f"{cell.run.path} was changed after it had ended", f"pico study judge {directory.path} says what")
        found.setdefault(cell.run.name, cell)
    return list(found.values())


def steps_of(lock: StudyLock) -> dict[str, int]:
    """Run -> training steps, by the overrides of its place."""
    found = {}
    for cell in lock.cells:
        content = apply_overrides(lock.base, cell.overrides)
        default = lock.variants[cell.variant].config["training.max_steps"]
        found[cell.run] = int((content.get("training") or {}).get("max_steps", default))
    return found


def needed_now(directory: StudyDirectory, lock: StudyLock) -> tuple[list[Cell], list[Cell]]:
    """(places of the tuning stage, places of the confirmation stage); the second is empty until every value is picked."""
    everything = cells(directory, lock)
    tuning = [cell for cell in everything if cell.phase == "tuning"]
    if lock.config.tuning is not None and read_picks(directory, lock) is None:
        return tuning, []
    return tuning, [cell for cell in everything if cell.phase in ("control", "confirm")]


def run_study(
    directory: StudyDirectory, lock: StudyLock, executor: Executor, observer: StudyObserver, *, poll_seconds: float = 0.2
) -> RunOutcome:
    """Carry out what a locked study still needs. One process at a time: a second one is refused."""
    directory.path.mkdir(parents=True, exist_ok=True)
    try:
        with RunLock(directory.running_file) as running:
            stage = Stage(directory, lock, executor, observer, steps_of(lock), poll_seconds, running.check)
            try:
                failures = _stages(stage)
            finally:
                executor.stop(STOP_SECONDS)
    except RunBusy as error:
        raise PicoError(f"{directory.path}: another process carries this study out ({error.message})", error.hint) from error
    tuning, counting = needed_now(directory, lock)
    left = missing(directory, lock, [*tuning, *counting])
    return RunOutcome(
        complete=bool(counting) and not left,
        ended=sum(cell.ended for cell in {cell.run.name: cell for cell in [*tuning, *counting]}.values()),
        failed=tuple(f"{run}: {reason}" for run, reason in failures.items()),
    )


@contextmanager
def stopping_like_ctrl_c() -> Iterator[None]:
    """Within the block a request to end the process (SIGTERM) is a KeyboardInterrupt, so that the runs can save."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stages(stage: Stage) -> dict[str, str]:
    directory, lock = stage.directory, stage.lock
    tuning, counting = needed_now(directory, lock)
    failures = stage.carry_out(tuning) if tuning else {}
    if not counting:
        if failures:
            return failures
        for variant, value in pick_values(directory, lock).items():
            stage.observer.say(f"tuned: {variant} with {lock.config.tuning.key if lock.config.tuning else ''} = {value}")
        counting = needed_now(directory, lock)[1]
    failures |= stage.carry_out(counting)
    if not failures and (reserve := reserve_needed(directory, lock)):
        stage.observer.say(
            f"the first look does not decide: {len(lock.config.looks)} looks are declared, the reserve seeds are run"
        )
        failures |= stage.carry_out(reserve)
    return failures


def reserve_needed(directory: StudyDirectory, lock: StudyLock) -> list[Cell]:
    """The places of the reserve seeds, if a second look is declared and the first does not decide."""
    study = lock.config
    if len(study.looks) < 2:
        return []
    from picolm.study.judge import judge

    if judge(study, cells(directory, lock), lock).next_look is None:
        return []
    seeds = study.seeds.reserve[: study.looks[1] - study.looks[0]]
    return [cell for cell in cells(directory, lock) if cell.phase == "reserve" and cell.seed in seeds]
