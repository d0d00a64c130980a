"""Picks the value of the tuned setting on the tuning seeds, and writes down from what. Needs no torch.

The rule is the one declared: best mean of one measure over the tuning seeds; a value with a run that diverged or crashed is out.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.studydir import StudyDirectory
from picolm.study.config import StudyConfig, TuningConfig
from picolm.study.lock import StudyLock
from picolm.study.matrix import Cell, all_cells, tuning_basis
from picolm.study.measures import measure_run

Table = dict[str, dict[str, dict[str, float | None]]]
"""Variant -> value (as text) -> seed (as text) -> what was measured; None for a run that did not end well."""


@dataclass(frozen=True)
class Pick:
    """What was picked for a variant, and from what."""

    value: Any
    at_the_edge: bool
    """Whether it is the first or last of the grid: the best may lie beyond."""
    means: dict[str, float | None]
    """Value (as text) -> mean over the tuning seeds; None if one of them did not end well."""
    seeds: dict[str, dict[str, float | None]]


def pick_values(directory: StudyDirectory, lock: StudyLock) -> dict[str, Any]:
    """Variant -> value picked, written to the study's folder. PicoError if a variant has no value that works."""
    tuning = lock.config.tuning
    assert tuning is not None
    picks = picked_values(directory, lock)
    durable.write_json(
        directory.tuning_file,
        {
            "format": "picolm.tuning/1",
            "study": lock.study,
            "lock": lock.hash,
            "basis": tuning_basis(lock),
            "key": tuning.key,
            "pick": tuning.pick,
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "picks": {variant: vars(pick) for variant, pick in picks.items()},
        },
    )
    return {variant: pick.value for variant, pick in picks.items()}


def picked_values(directory: StudyDirectory, lock: StudyLock) -> dict[str, Pick]:
    """Variant -> what the tuning runs give for it."""
    study = lock.config
    tuning = study.tuning
    assert tuning is not None
    places = [cell for cell in all_cells(directory, lock) if cell.phase == "tuning" and cell.value is not None]
    table = _measured(study, tuning, places)
    values = {str(cell.value): cell.value for cell in places}
    means = {variant: {value: mean_of(list(seeds.values())) for value, seeds in rows.items()} for variant, rows in table.items()}
    if not tuning.per_variant:
        together = {value: mean_of([rows[value] for rows in means.values()]) for value in values}
        means = dict.fromkeys(means, together)
    lower = study.measures[tuning.pick].better == "lower"
    picks = {}
    for variant, rows in means.items():
        best = _best(rows, lower=lower)
        if best is None:
            raise PicoError(
                f"tuning: every value of {tuning.key} failed in variant {variant}", "choose another grid, then pico study lock"
            )
        edge = best in (str(tuning.grid[0]), str(tuning.grid[-1]))
        picks[variant] = Pick(values[best], edge, rows, table[variant])
    return picks


def mean_of(values: list[float | None]) -> float | None:
    """The mean; None if any value is missing."""
    return (
        None
        if not values or any(value is None for value in values)
        else math.fsum(v for v in values if v is not None) / len(values)
    )


def _measured(study: StudyConfig, tuning: TuningConfig, places: list[Cell]) -> Table:
    table: Table = {}
    for cell in places:
        row = table.setdefault(cell.variant, {}).setdefault(str(cell.value), {})
        row[str(cell.seed)] = _value(study, tuning, cell)
    return table


def _value(study: StudyConfig, tuning: TuningConfig, cell: Cell) -> float | None:
    if cell.status != "complete":
        return None
    value = measure_run(study, cell, [tuning.pick]).reduced[tuning.pick].value
    return value if value is not None and math.isfinite(value) else None


def _best(means: dict[str, float | None], *, lower: bool) -> str | None:
    """The value with the best mean; of equal ones the first of the grid."""
    known = {value: mean for value, mean in means.items() if mean is not None}
    if not known:
        return None
    return min(known, key=lambda value: known[value] if lower else -known[value])
