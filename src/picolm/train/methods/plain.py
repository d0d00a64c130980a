"""Ordinary language-model training: next-token cross-entropy, accumulated over micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from picolm.train.methods.contract import METHODS, StepBatch, StepResult, TrainingMethod

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule


@METHODS.register("plain")
class Plain(TrainingMethod):
    """Next-token prediction on every position; the gradient is that of the mean over the global batch's tokens."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """Sum the loss over tokens and divide by the global count, so that the split into micro-batches cannot matter."""
        scale = fabric.world_size / batch.global_tokens  # data parallelism averages gradients over processes
        loss_sum = torch.zeros((), dtype=torch.float64 if fabric.device.type != "mps" else torch.float32, device=fabric.device)
        for number, tokens_BT in enumerate(batch.micro_batches, start=1):
            last = number == len(batch.micro_batches)
            with fabric.no_backward_sync(cast("_FabricModule", model), enabled=fabric.world_size > 1 and not last):
                micro_loss_sum = model(tokens_BT[:, :-1], labels_BT=tokens_BT[:, 1:])
                fabric.backward(micro_loss_sum * scale)
            loss_sum += micro_loss_sum.detach()
        return StepResult(loss_sum)
