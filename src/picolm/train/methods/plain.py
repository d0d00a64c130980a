"""Ordinary language-model training: next-token cross-entropy, accumulated over micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from picolm.train.methods.contract import COMPILED, METHODS, SCALED_LOSS, SEVERAL_PROCESSES, StepBatch, StepResult, TrainingMethod
from picolm.train.methods.language_model import language_model_step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@METHODS.register("plain")
class Plain(TrainingMethod):
    """Next-token prediction on every position; the gradient is that of the mean over the global batch's tokens."""

    supports = frozenset({SEVERAL_PROCESSES, COMPILED, SCALED_LOSS})

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """One pass over the step's micro-batches."""
        return language_model_step(model, batch, fabric)
