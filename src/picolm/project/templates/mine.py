"""Ideas of this project: a metric, a component and a training method. YAML files name them as `./mine.py:gap`.

Change them, or write more: no registration, no fork. Keyword-only parameters are settings. `pico check ./mine.py:gap` says
whether something keeps the promises that the rest of Pico relies on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from picolm import Undefined
from picolm.analyze.components.contract import Piece
from picolm.records.snapshot import Snapshot
from picolm.train.methods.contract import RunFacts, StepBatch, StepResult, TrainingMethod, draws_for
from picolm.train.methods.language_model import language_model_step

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def gap(sigma_R: Tensor, *, place: int = 1) -> float:
    """How far a singular value falls behind the largest: 0 not at all, 1 entirely.

    A parameter named sigma... receives the singular values, largest first; any other name would receive the matrix, and two
    parameters a pair.
    """
    if len(sigma_R) <= place or sigma_R[0] == 0:
        raise Undefined("the matrix is zero or too small")  # the row then has this reason instead of a value
    return float(1 - sigma_R[place] / sigma_R[0])


def gates_and_units(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """For each layer, the overlap of what gates and units of the feed-forward block read."""
    tensors = snapshot.tensors(data_type)

    def overlap(gate: str) -> Tensor:
        return tensors[gate] @ tensors[gate.removesuffix("w_0") + "w_1"].T

    gates = [name for name in tensors if name.endswith("swiglu.w_0")]
    for layer, gate in enumerate(gates):
        yield Piece("gates_and_units", partial(overlap, gate), layer)  # nothing is read before a metric asks


class NoisyGradient(TrainingMethod):
    """Ordinary training with Gaussian noise in every gradient, less and less of it.

    The noise of a tensor is `share / (1 + step) ** decay` as large as its gradient.
    """

    def __init__(self, *, share: float = 1.0, decay: float = 0.5) -> None:
        self._share, self._decay = share, decay

    def begin_run(self, facts: RunFacts) -> None:
        """The seed of the run's own random stream for methods: `training.seeds.method`."""
        self._seed = facts.seed

    def forward_backward(self, model: torch.nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """The ordinary gradient, then the noise; the column `noise_share` of the log says how much."""
        result = language_model_step(model, batch, fabric)
        share = self._share / (1 + batch.step) ** self._decay
        draws = draws_for(self._seed, "noise", batch.step)  # depends on its key alone: resuming needs no state
        for gradient in (parameter.grad for parameter in model.parameters() if parameter.grad is not None):
            noise = torch.randn(gradient.shape, generator=draws).to(gradient)
            gradient += share * gradient.norm() / noise.norm() * noise
        return StepResult(result.loss_sum, {"noise_share": share})
