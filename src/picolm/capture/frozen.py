"""The gradient of a linear module's weight where training computes none, from what passes through the module anyway.

With y = x Wᵀ, and δ the gradient at y, dL/dW = Σ δᵀ x over all rows of all passes, whether or not W is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from picolm.capture.circuits import wide


class FrozenGradients:
    """The sums so far, and the outputs of the modules in the passes since `outputs` was last cleared."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.outputs: list[Tensor] = []

    def add(self, name: str, input_XI: Tensor, delta_XO: Tensor) -> None:
        """Add what one backward pass has to say about one module."""
        with torch.no_grad(), torch.autocast(delta_XO.device.type, enabled=False):
            gradient_OI = wide(delta_XO).flatten(0, -2).mT @ wide(input_XI).flatten(0, -2)
            self.totals[name] = self.totals[name] + gradient_OI if name in self.totals else gradient_OI


@contextmanager
def frozen_gradients(modules: Mapping[str, nn.Module]) -> Iterator[FrozenGradients]:
    """Sum up the gradient of each module's weight over every forward and backward pass inside the block.

    `modules`: name of the weight -> module with one input and one output. Nothing that the passes compute is changed.
    """
    gradients = FrozenGradients()
    handles = [module.register_forward_hook(_watcher(name, gradients)) for name, module in modules.items()]
    try:
        yield gradients
    finally:
        for handle in handles:
            handle.remove()


def _watcher(name: str, gradients: FrozenGradients) -> Any:
    def watch(module: nn.Module, given: tuple[Tensor, ...], output_XO: Tensor) -> None:
        if output_XO.requires_grad:
            input_XI = given[0].detach()
            gradients.outputs.append(output_XO)
            output_XO.register_hook(lambda delta_XO: gradients.add(name, input_XI, delta_XO))  # type: ignore[no-untyped-call]

    return watch
