"""Copies what a step computes: outputs of modules, gradients before clipping, the update that followed.

Everything is copied to the CPU in its native dtype as it passes; nothing that the step computes is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from picolm.capture.circuits import CircuitGradients, circuit_gradients
from picolm.capture.frozen import FrozenGradients, frozen_gradients
from picolm.capture.micro_batches import squared_norms_of_passes
from picolm.capture.plan import CapturePlan

LANGUAGE_MODEL = "language model"
"""The mean next-token loss."""

MOMENTS = {"momentum": ("exp_avg", "momentum_buffer"), "second_moment": ("exp_avg_sq",)}
"""What torch's optimisers call their moments."""


class Recorder:
    """One snapshot in the making: fill it with `activations_of`, `gradients_of`, `updates_of`, then read its tensors."""

    def __init__(self, plan: CapturePlan, *, own_pass: bool = False) -> None:
        self.plan = plan
        self.own_pass = own_pass
        """Whether activations and circuit gradients are those of a language-model pass beside the step, over the same rows."""
        self.objective = LANGUAGE_MODEL
        """What the gradients are of."""
        self.activations: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.updates: dict[str, Tensor] = {}
        self.update_ranks: dict[str, int] = {}
        """Plain name -> largest rank its update can have, where training is of low rank."""
        self.frozen: dict[str, Tensor] = {}
        """Gradients of weights for which training computes none."""
        self.ov_gradients: dict[str, Tensor] = {}
        """Circuit -> (query heads, model width, model width)."""
        self.momentum: dict[str, Tensor] = {}
        self.second_moment: dict[str, Tensor] = {}
        self.micro_batch_squared_norms: dict[str, list[float]] = {}
        """Plain name -> squared norm of the gradient of the mean loss of each micro-batch."""
        self.micro_batch_tokens: list[int] = []

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Data type -> plain name -> tensor, of everything that was recorded."""
        named = {"activations": self.activations, "gradients": self.gradients, "updates": self.updates}
        optional = {"ov_gradients": self.ov_gradients, "momentum": self.momentum, "second_moment": self.second_moment}
        return {data_type: tensors for data_type, tensors in (named | optional).items() if tensors}

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
        # A module that the pass does not call has none: the output head, whose product is part of the loss.
        self.activations = {name: torch.cat(chunks) for name, chunks in passes.items() if chunks}

    @contextmanager
    def circuits_of(self, model: nn.Module, loss_scale: float = 1.0) -> Iterator[CircuitGradients]:
        """Sum up the exact gradients of the planned circuits over the forward and backward passes inside the block.

        `loss_scale`: a factor of the loss in those passes, taken out of the sums.
        """
        modules = dict(model.named_modules())
        watched = {circuit.name: (modules[circuit.value], modules[circuit.output]) for circuit in self.plan.circuits}
        with circuit_gradients(watched) as gradients:
            yield gradients
        self.ov_gradients = {name: total.cpu() / loss_scale for name, total in gradients.totals.items()}

    @contextmanager
    def frozen_of(self, modules: Mapping[str, nn.Module], loss_scale: float = 1.0) -> Iterator[FrozenGradients]:
        """Sum up the gradients of the planned ones of `modules`, whose weights get none, over the passes inside the block.

        `loss_scale`: a factor of the loss in those passes, taken out of the sums.
        """
        with frozen_gradients({name: modules[name] for name in self.plan.tensor_names if name in modules}) as gradients:
            yield gradients
        self.frozen = {name: total.cpu() / loss_scale for name, total in gradients.totals.items()}

    @contextmanager
    def micro_batches_of(self, plain_tensors: Mapping[str, Tensor], tokens: Sequence[int], scale: float) -> Iterator[None]:
        """Keep squared gradient norms of the micro-batches, whose numbers of predicted tokens are `tokens`.

        Each backward pass inside the block is one micro-batch and its loss the sum over its tokens times `scale`. A method that
        runs backward more often than there are micro-batches has none that could be told apart: nothing is kept.
        """
        with squared_norms_of_passes({name: plain_tensors[name] for name in self.plan.tensor_names}) as found:
            yield
        if all(len(norms) == len(tokens) for norms in found.values()):
            self.micro_batch_tokens = list(tokens)
            self.micro_batch_squared_norms = {
                name: [float(norm) / (scale * count) ** 2 for norm, count in zip(norms, tokens, strict=True)]
                for name, norms in found.items()
            }

    def copy_moments(self, plain_tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Keep the optimiser's moments of the planned tensors, where it has any: call after the update."""
        kept = {"momentum": self.momentum, "second_moment": self.second_moment}
        for name in self.plan.tensor_names:
            state = optimizer.state.get(plain_tensors[name], {})
            for moment, entries in MOMENTS.items():
                entry = next((entry for entry in entries if isinstance(state.get(entry), Tensor)), None)
                if entry is not None:
                    kept[moment][name] = _copy(state[entry])

    def copy_gradients(self, plain_tensors: Mapping[str, Tensor]) -> None:
        """Keep the gradients as they stand: call after backward and before clipping."""
        found = {name: self.frozen.get(name, plain_tensors[name].grad) for name in self.plan.tensor_names}
        self.gradients = {name: _copy(gradient) for name, gradient in found.items() if gradient is not None}

    @contextmanager
    def updates_of(self, acting: Mapping[str, Tensor], plain_tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Keep the change that the block makes to the planned tensors among `acting`, in the types of the plain ones.

        A mapping may compute its tensors when they are looked up, wider than they are stored: the change is rounded, not they.
        """
        before = {name: _copy(acting[name]) for name in self.plan.tensor_names}
        yield
        self.updates = {name: (_copy(acting[name]) - was).to(plain_tensors[name].dtype) for name, was in before.items()}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
