"""The forward and backward passes of a step that has more than one objective, each by itself.

Nothing is exchanged while a pass runs: some parameters take part in one objective only, and a step may have either. The mean over
the processes is taken once, at the end, of whatever has a gradient anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from picolm.train.methods.smlmt_episodes import Examples

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule


def unsynchronised(model: nn.Module, fabric: Fabric) -> AbstractContextManager[None]:
    """Inside the block the processes do not exchange gradients."""
    return fabric.no_backward_sync(cast("_FabricModule", model), enabled=fabric.world_size > 1)


def language_model_pass(
    model: nn.Module, fabric: Fabric, micro_batches: Sequence[Tensor], trained: Sequence[bool], scale: float
) -> Tensor:
    """Cross-entropy summed over this process's tokens; the gradient of `scale` times it, for the micro-batches to be trained on.

    The others are only measured, so that the loss is that of all rows of the step whatever the step trains on.
    """
    loss_sum = torch.zeros((), dtype=torch.float64 if fabric.device.type != "mps" else torch.float32, device=fabric.device)
    for tokens_BT, is_trained in zip(micro_batches, trained, strict=True):
        with unsynchronised(model, fabric), torch.set_grad_enabled(is_trained):
            micro_loss_sum = model(tokens_BT[:, :-1], labels_BT=tokens_BT[:, 1:])
            if is_trained:
                fabric.backward(micro_loss_sum * scale)
        loss_sum += micro_loss_sum.detach()
    return loss_sum


class FeatureChunk(NamedTuple):
    """Which of the examples, and their features (S, D)."""

    part: slice
    features_SD: Tensor


@dataclass(frozen=True)
class FeatureReader:
    """Turns masked sequences into features: what the output head would read at one position of each.

    Divided by √D, so that features have a norm of about one and the inner learning rate means the same at any width.
    """

    model: nn.Module
    fabric: Fabric
    at_mask: bool
    """Read at the masked word, which sees what is left of it, instead of at the last token, which sees all."""
    scaled: bool
    tokens_per_pass: int
    """No pass holds more than a micro-batch of the step does."""

    def chunks(self, examples: Examples, size: int) -> Iterator[FeatureChunk]:
        """The features of the examples, one pass after the other, with gradients if they are enabled.

        Passes are filled up to the shape that `size` examples would have, so that a compiled model sees one shape only.
        """
        count, length = examples.tokens_SL.shape
        size = max(size, count)
        passes = math.ceil(size * length / max(self.tokens_per_pass, length))
        width = math.ceil(size / passes)
        device = self.fabric.device
        position_S = torch.from_numpy(examples.positions_S) if self.at_mask else torch.full((count,), length - 1)
        for first in range(0, count, width):
            part = slice(first, min(first + width, count))
            tokens_SL = torch.from_numpy(examples.tokens_SL[part])
            filling = tokens_SL[:1].expand(width - len(tokens_SL), -1)
            with unsynchronised(self.model, self.fabric):
                whole_SLD = self.model(torch.cat([tokens_SL, filling]).to(device), features=True)
            places = torch.arange(len(tokens_SL), device=device)
            features_SD = whole_SLD[places, position_S[part].to(device)]
            yield FeatureChunk(part, features_SD * features_SD.shape[1] ** -0.5 if self.scaled else features_SD)

    @torch.no_grad()
    def read(self, examples: Examples, size: int) -> Tensor:
        """(S, D): the features of all examples, without gradient."""
        return torch.cat([chunk.features_SD for chunk in self.chunks(examples, size)])
