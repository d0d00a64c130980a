"""From the paths that a person names to what is reported: single runs, all runs of a folder, or the runs of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory, list_runs, open_run_directory
from picolm.records.studydir import LOCK_FILE, STUDY_FILE, StudyDirectory, open_study_directory
from picolm.study.judgement import Judgement, read_judgement
from picolm.study.lock import find_lock
from picolm.study.matrix import cells

CLAIMED = ("confirm", "reserve")
"""Phases of a study whose runs the claim rests on; tuning runs and positive controls are not compared with them."""


@dataclass(frozen=True)
class Chosen:
    """What a report is about."""

    runs: list[RunDirectory]
    study: StudyDirectory | None = None

    @property
    def page(self) -> Path:
        """Where its page goes if no other place is named."""
        return self.runs[0].report_page if self.study is None else self.study.runs_page

    def judgement(self) -> Judgement | None:
        """What was found about the study; None if there is none, or it was not judged."""
        judged = self.study is not None and self.study.judgement_file.is_file()
        return read_judgement(self.study.judgement_file) if self.study is not None and judged else None


def find_chosen(paths: Sequence[Path]) -> Chosen:
    """The run folders named, found directly below a named folder, or made for a named study; PicoError if a path holds none."""
    studies = [open_study_directory(path) for path in paths if is_study(path)]
    found: list[RunDirectory] = []
    for path in paths:
        found += study_runs(open_study_directory(path)) if is_study(path) else _runs_at(path)
    unique = {run.path.resolve(): run for run in found}
    return Chosen(list(unique.values()), studies[0] if len(paths) == 1 and studies else None)


def is_study(path: Path) -> bool:
    """Whether a path is a folder with a study or its results."""
    return (path / STUDY_FILE).is_file() or (path / LOCK_FILE).is_file()


def study_runs(study: StudyDirectory) -> list[RunDirectory]:
    """The runs that a study's claim rests on, as far as they exist; without a lock all in its folder. PicoError if none."""
    lock = find_lock(study)
    if lock is None:
        found = list_runs(study.runs)
    else:
        claimed = [cell.run for cell in cells(study, lock) if cell.phase in CLAIMED]
        found = [run for run in claimed if run.identity_file.is_file()]
    if not found:
        raise PicoError(f"the study {study.name} has no runs yet", f"pico study run {study.path}")
    return found


def _runs_at(path: Path) -> list[RunDirectory]:
    inside = [] if RunDirectory(path).identity_file.is_file() else list_runs(path)
    return inside or [open_run_directory(path)]
