"""Which evaluations run at a step: at checkpoints or at their own pace, within a share of the training time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from picolm.evaluate.contract import NamedEvaluation
from picolm.records.evaluation import read_settings
from picolm.records.rundir import RunDirectory


class Due(NamedTuple):
    """What to run at a step, and by label why something due is left out."""

    evaluations: list[NamedEvaluation]
    skipped: dict[str, str]


@dataclass
class Cadence:
    """Decides what is due, and keeps account of the seconds spent.

    The first run of each evaluation and the last step are never skipped. Otherwise one is left out while the seconds spent on
    evaluation, with those it took last time, would exceed `budget` times the seconds of training so far.
    """

    evaluations: Sequence[NamedEvaluation]
    last_step: int
    budget: float | None = None
    spent_seconds: float = 0.0
    last_seconds: dict[str, float] = field(default_factory=dict)

    def due(self, step: int, *, is_checkpoint: bool, training_seconds: float) -> Due:
        """The evaluations of a step; `training_seconds`: spent on training so far, without evaluation."""
        chosen: list[NamedEvaluation] = []
        skipped: dict[str, str] = {}
        planned = self.spent_seconds
        for named in self.evaluations:
            if not self.is_turn(named, step, is_checkpoint=is_checkpoint):
                continue
            planned += self.last_seconds.get(named.label, 0.0)
            if self._fits(named, step, planned, training_seconds):
                chosen.append(named)
                continue
            planned -= self.last_seconds[named.label]
            skipped[named.label] = (
                f"would take about {self.last_seconds[named.label]:.1f} s; "
                f"{self.spent_seconds:.1f} s of {training_seconds:.1f} s of training are spent, the budget is {self.budget}"
            )
        return Due(chosen, skipped)

    def note_seconds(self, settings: dict[str, Any]) -> None:
        """Enter the seconds in the settings that `run_evaluations` returned."""
        for label, values in settings.items():
            if "seconds" in values:
                self.last_seconds[label] = float(values["seconds"])
                self.spent_seconds += float(values["seconds"])

    def report(self, training_seconds: float) -> str:
        """One sentence on what evaluation has cost so far."""
        share = self.spent_seconds / training_seconds if training_seconds > 0 else 0.0
        allowed = "" if self.budget is None else f" (budget {self.budget:.3g})"
        return f"evaluation took {self.spent_seconds:.1f} s, {share:.3g} of the training time{allowed}"

    def is_turn(self, named: NamedEvaluation, step: int, *, is_checkpoint: bool) -> bool:
        """Whether an evaluation wants this step: a checkpoint, or a step of its own pace."""
        if named.every_n_steps is None:
            return is_checkpoint
        return step % named.every_n_steps == 0 or step == self.last_step

    def _fits(self, named: NamedEvaluation, step: int, planned: float, training_seconds: float) -> bool:
        if self.budget is None or step == self.last_step or named.label not in self.last_seconds:
            return True
        return planned <= self.budget * training_seconds


def resume_cadence(cadence: Cadence, run: RunDirectory) -> None:
    """Take over the account of a run that continues: the seconds in its evaluation files."""
    labels = {named.label for named in cadence.evaluations}
    steps = [int(path.stem.removeprefix("step_")) for path in run.evaluations.glob("step_*.json")]
    for step in sorted(steps):
        settings = read_settings(run, step)
        cadence.note_seconds({label: settings[label] for label in labels & settings.keys()})


def skipped_settings(due: Due) -> dict[str, Any]:
    """What the evaluation file says about evaluations that were left out."""
    return {label: {"skipped": reason} for label, reason in due.skipped.items()}
