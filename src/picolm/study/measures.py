"""What was measured in each run of a study: one number per (variant, seed, measure), or a curve. Failures count as declared.

Runs come in as places of the matrix; out come a table for people and `Measured`, which predictions and checks ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from picolm.base.errors import PicoError
from picolm.study.config import StudyConfig
from picolm.study.matrix import Cell
from picolm.study.reductions import Reduced, reduce_measure
from picolm.study.series import RunFiles

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class MeasuredRun:
    """One run with its files and what the measures give for it."""

    cell: Cell
    files: RunFiles
    reduced: dict[str, Reduced] = field(default_factory=dict)
    """Measure -> what it gives; empty for a run that did not end."""


@dataclass(frozen=True)
class Measured:
    """The runs of the confirmation and reserve seeds, by variant and seed."""

    study: StudyConfig
    runs: dict[tuple[str, int], MeasuredRun]

    def reduced(self, measure: str, variant: str, seed: int) -> Reduced:
        """What the measure gives for one run; +-infinity for a diverged run. PicoError if it has none."""
        run = self.runs[variant, seed]
        found = run.reduced.get(measure)
        if found is None or (found.value is None and found.curve is None):
            reason = f"the run is {run.cell.status}" if found is None else found.note
            raise PicoError(f"{run.cell.run.path}: {measure} has no value: {reason}", "mend the measure, or the run")
        return found

    def ended(self, seed: int) -> bool:
        """Whether the runs of a seed have all come to an end, in every variant."""
        mine = [self.runs.get((variant, seed)) for variant in self.study.variants]
        return all(run is not None and run.cell.ended for run in mine)

    def diverged(self, seed: int) -> bool:
        return any((run := self.runs.get((variant, seed))) and run.cell.status == "diverged" for variant in self.study.variants)

    def seeds(self) -> tuple[int, ...]:
        """Seeds all of whose runs ended, in the declared order; without those that a diverged run takes with it."""
        declared = (*self.study.seeds.confirm, *self.study.seeds.reserve)
        dropping = self.study.failures.diverged == "drop_seed"
        return tuple(seed for seed in declared if self.ended(seed) and not (dropping and self.diverged(seed)))


def measure_run(study: StudyConfig, cell: Cell, measures: Sequence[str]) -> MeasuredRun:
    """The given measures of one run, if it ended. In a diverged run every number counts as the worst there is.

    A series that the run does not have, such as one that only another variant's method logs, gives no number, with the reason.
    """
    files = RunFiles(cell.run)
    if cell.status == "complete":
        return MeasuredRun(cell, files, {name: _reduced(study, name, files) for name in measures})
    if cell.status == "diverged":
        return MeasuredRun(cell, files, {name: _worst(study, name) for name in measures})
    return MeasuredRun(cell, files)


def _reduced(study: StudyConfig, measure: str, files: RunFiles) -> Reduced:
    try:
        return reduce_measure(study.measures[measure], files)
    except PicoError as error:
        return Reduced(None, note=f"{error.message} ({error.hint})" if error.hint else error.message)


def _worst(study: StudyConfig, measure: str) -> Reduced:
    value = math.inf if study.measures[measure].better == "lower" else -math.inf
    return Reduced(value, note="diverged: counts as the worst")


def measure_cells(study: StudyConfig, cells: Iterable[Cell], measures: Sequence[str] | None = None) -> list[MeasuredRun]:
    """Every given run with the given measures (all, if none are given)."""
    chosen = tuple(study.measures) if measures is None else measures
    return [measure_run(study, cell, chosen) for cell in cells]


def measured(study: StudyConfig, cells: Iterable[Cell]) -> Measured:
    """What the runs of the confirmation and reserve seeds give."""
    counting = [cell for cell in cells if cell.phase in ("confirm", "reserve")]
    return Measured(study, {(run.cell.variant, run.cell.seed): run for run in measure_cells(study, counting)})


def measure_table(study: StudyConfig, cells: Iterable[Cell], measures: Sequence[str] | None = None) -> pandas.DataFrame:
    """One row per run and measure: variant, seed, phase, control, tuned, measure, value, censored, note, status."""
    import pandas

    columns = ("variant", "seed", "phase", "control", "tuned", "status", "measure", "value", "censored", "note")
    rows = []
    for run in measure_cells(study, cells, measures):
        cell = run.cell
        place = (cell.variant, cell.seed, cell.phase, cell.control, cell.value, cell.status)
        chosen = tuple(study.measures) if measures is None else measures
        for name in chosen:
            reduced = run.reduced.get(name, Reduced(None, note=f"the run is {cell.status}"))
            rows.append((*place, name, reduced.value, reduced.censored, reduced.note))
    return pandas.DataFrame(rows, columns=list(columns))
