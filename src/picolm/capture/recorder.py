"""Copies what a step computes: outputs of modules, gradients before clipping, the update that followed.

Everything is copied to the CPU in its native dtype as it passes; nothing that the step computes is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from picolm.capture.plan import CapturePlan


class Recorder:
    """One snapshot in the making: fill it with `activations_of`, `gradients_of`, `updates_of`, then read its tensors."""

    def __init__(self, plan: CapturePlan) -> None:
        self.plan = plan
        self.activations: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.updates: dict[str, Tensor] = {}

    @contextmanager
    def activations_of(self, model: nn.Module) -> Iterator[None]:
        """Keep the outputs of the planned modules at the planned positions in every forward pass inside the block.

        (B, T, width) of each micro-batch becomes (samples, width): sequences in order, positions within each.
        """
        passes: dict[str, list[Tensor]] = {name: [] for name in self.plan.module_names}
        positions = torch.tensor(self.plan.positions)
        modules = dict(model.named_modules())

        def keeper(name: str) -> Any:
            def keep(module: nn.Module, inputs: Any, output_BTX: Tensor) -> None:
                chosen_BPX = output_BTX.detach().index_select(1, positions.to(output_BTX.device))
                passes[name].append(chosen_BPX.flatten(0, 1).cpu().clone())

            return keep

        handles = [modules[name].register_forward_hook(keeper(name)) for name in self.plan.module_names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self.activations = {name: torch.cat(chunks) for name, chunks in passes.items()}

    def copy_gradients(self, plain_tensors: Mapping[str, Tensor]) -> None:
        """Keep the gradients as they stand: call after backward and before clipping."""
        self.gradients = {
            name: _copy(gradient) for name in self.plan.tensor_names if (gradient := plain_tensors[name].grad) is not None
        }

    @contextmanager
    def updates_of(self, plain_tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Keep the change that the block makes to the planned tensors."""
        before = {name: _copy(plain_tensors[name]) for name in self.plan.tensor_names}
        yield
        self.updates = {name: _copy(plain_tensors[name]) - before[name] for name in self.plan.tensor_names}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
