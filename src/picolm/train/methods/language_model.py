"""The step every method builds on: next-token cross-entropy over micro-batches, with extra terms of the loss if there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from picolm.train.methods.contract import StepBatch, StepResult

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule

ExtraLoss = Callable[[], Mapping[str, Tensor]]
"""Name -> a scalar that depends on parameters and is added to the mean loss; the name becomes a column of the log."""


def language_model_step(model: nn.Module, batch: StepBatch, fabric: Fabric, extra_loss: ExtraLoss | None = None) -> StepResult:
    """Gradient of the mean next-token loss over the step's tokens, plus that of the extra terms, computed once per step.

    Losses are summed over tokens and divided by the global count, so that the split into micro-batches cannot matter. Extra
    terms must be the same in every process: functions of the weights, not of this process's rows.
    """
    scale = fabric.world_size / batch.global_tokens  # data parallelism averages gradients over processes
    several = fabric.world_size > 1
    terms = {} if extra_loss is None else extra_loss()
    if (
        terms
    ):  # before the rows: gradients that are there already are averaged with the others, and the mean of equals is the same
        with fabric.no_backward_sync(cast("_FabricModule", model), enabled=several):
            fabric.backward(torch.stack([term.float() for term in terms.values()]).sum())
    loss_sum = torch.zeros((), dtype=torch.float64 if fabric.device.type != "mps" else torch.float32, device=fabric.device)
    for number, tokens_BT in enumerate(batch.micro_batches, start=1):
        last = number == len(batch.micro_batches)
        with fabric.no_backward_sync(cast("_FabricModule", model), enabled=several and not last):
            micro_loss_sum = model(tokens_BT[:, :-1], labels_BT=tokens_BT[:, 1:])
            fabric.backward(micro_loss_sum * scale)
        loss_sum += micro_loss_sum.detach()
    return StepResult(loss_sum, {name: term.detach() for name, term in terms.items()})
