"""What a training run calls: the evaluations that are due at a step, on the live model, scores into the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from picolm.evaluate.cadence import Cadence, Due, resume_cadence, skipped_settings
from picolm.evaluate.contract import EvaluationConfig, NamedEvaluation, run_evaluations
from picolm.evaluate.processes import Processes, all_processes
from picolm.evaluate.scorer import Tokenizer
from picolm.records.evaluation import write_scores
from picolm.records.items import write_items
from picolm.records.rundir import RunDirectory


class LiveEvaluation:
    """Evaluations of one run, checked already. Every process calls `at` with the same step; the first one writes."""

    def __init__(
        self,
        evaluations: Sequence[NamedEvaluation],
        config: EvaluationConfig,
        run: RunDirectory,
        *,
        tokenizer: Tokenizer | None,
        last_step: int,
        device: torch.device,
        precision: str,
    ) -> None:
        self._run = run
        self._last_step = last_step
        self._tokenizer = tokenizer
        self._device = device
        self._precision = precision
        self._processes: Processes = all_processes(device)
        self.cadence = Cadence(list(evaluations), last_step, config.budget)
        resume_cadence(self.cadence, run)

    def is_turn(self, step: int, *, is_checkpoint: bool) -> bool:
        """Whether any evaluation wants this step, whatever the budget says."""
        return any(self.cadence.is_turn(named, step, is_checkpoint=is_checkpoint) for named in self.cadence.evaluations)

    def at(self, step: int, tokens: int, model: nn.Module, *, is_checkpoint: bool, training_seconds: float) -> Due:
        """Run and write what is due; what was run, and what was left out and why. Training goes on as if nothing had happened.

        `training_seconds`: time spent on training so far, evaluation not included.
        """
        due = self._agreed(self.cadence.due(step, is_checkpoint=is_checkpoint, training_seconds=training_seconds))
        if not due.evaluations and not due.skipped:
            return due
        scores, settings = run_evaluations(
            due.evaluations, model, self._tokenizer, device=self._device, precision=self._precision, processes=self._processes
        )
        self.cadence.note_seconds(settings)
        if self._processes.rank == 0:
            write_scores(self._run, step, tokens, scores, settings | skipped_settings(due))
            if step == self._last_step:  # studies compare runs item by item
                keep_items(self._run, step, due.evaluations)
        return due

    def _agreed(self, due: Due) -> Due:
        """The first process's decision: clocks differ, and all must run the same evaluations."""
        mine: Any = [named in due.evaluations for named in self.cadence.evaluations]
        chosen = self._processes.sum(np.asarray(mine, dtype=np.float64) * (self._processes.rank == 0))
        evaluations = [named for named, is_due in zip(self.cadence.evaluations, chosen, strict=True) if is_due]
        return Due(evaluations, due.skipped if self._processes.rank == 0 else {})


def keep_items(run: RunDirectory, step: int, evaluations: Sequence[NamedEvaluation]) -> None:
    """Keep the single items of evaluations that have just been run on a step."""
    for named in evaluations:
        values = named.evaluation.item_values()
        if values is not None:
            write_items(run, step, named.label, values)
