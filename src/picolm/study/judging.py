"""Judges a study where it lies: its lock, its runs, what was changed; writes `judgement.json`. Needs no torch."""

from __future__ import annotations

from picolm.records.studydir import StudyDirectory
from picolm.study.judge import judge
from picolm.study.judgement import Judgement, write_judgement
from picolm.study.lock import read_lock
from picolm.study.matrix import cells
from picolm.study.tamper import find_deviations, find_tampering


def judge_study(directory: StudyDirectory, *, run_command: str = "", weights: bool = False) -> Judgement:
    """The judgement of a locked study, also written into its folder. `run_command`: what carries out what is still missing."""
    lock = read_lock(directory.lock_file)
    study = lock.config
    places = cells(directory, lock)
    tampering = find_tampering(directory, lock, weights=weights)
    found = judge(study, places, lock, tampering=tampering, deviations=find_deviations(directory, lock))
    waiting = any(cell.status in ("missing", "crashed") and cell.phase != "reserve" for cell in places)
    judgement = found.model_copy(update={"extend_command": run_command if waiting or found.next_look is not None else ""})
    write_judgement(directory.judgement_file, judgement)
    return judgement
