"""The conformance check of training methods: everything registered passes, and each promise has one that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from picolm.model.contract import LanguageModel
from picolm.testing.checks import check_method, complaints
from picolm.testing.checks.method import METHOD_PROMISES, TWO_PROCESSES
from picolm.testing.tiny import Workshop
from picolm.train.methods.contract import METHODS, StepBatch, StepResult
from picolm.train.methods.plain import Plain

from .broken import broken_promises, without_a_culprit


@pytest.mark.parametrize("name", [entry.name for entry in METHODS.entries()])
def test_every_registered_method_keeps_its_promises(name: str, workshop: Workshop):
    kind = METHODS.find(name)
    assert complaints(check_method(kind, workshop=workshop, processes=False)) == []


class Silent(Plain):
    __doc__ = None


class Untyped(Plain):
    """Plain."""

    def __init__(self, *, every=1) -> None:  # type: ignore[no-untyped-def]
        self.every = every


class WrongDefault(Plain):
    """Plain."""

    def __init__(self, *, every: int = "never") -> None:  # type: ignore[assignment]
        self.every = every


class NoHeir:
    """Not a method at all."""


class NotFinite(Plain):
    """Reports what is no number."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        result = super().forward_backward(model, batch, fabric)
        return StepResult(result.loss_sum, {"ratio": float("nan")})


class TakesTheName(Plain):
    """Reports its own loss under the loop's name."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        result = super().forward_backward(model, batch, fabric)
        return StepResult(result.loss_sum, {"gradient_norm": 1.0})


class Draws(Plain):
    """Draws from the global stream."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        random.random()
        return super().forward_backward(model, batch, fabric)


class DrawsFromTorch(Plain):
    """Draws where dropout draws, but after the forward pass."""

    def after_update(self, step: int, model: LanguageModel, optimizer: Any, *, applied: bool) -> Any:
        torch.rand(1)
        return {}


class MeanOfMicroBatches(Plain):
    """Counts each micro-batch as if it were the whole."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        tokens = batch.global_tokens // len(batch.micro_batches)
        return super().forward_backward(model, StepBatch(batch.step, batch.micro_batches, tokens), fabric)


class Uphill(Plain):
    """The gradient with the wrong sign."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        result = super().forward_backward(model, batch, fabric)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.neg_()
        return result


class Jittered(Plain):
    """Adds noise from a stream that no seed of the run fixes."""

    def after_update(self, step: int, model: LanguageModel, optimizer: Any, *, applied: bool) -> Any:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-3 * random.random())
        return {}


class Forgets(Plain):
    """Counts its updates without saving the count."""

    def __init__(self) -> None:
        self.updates = 0

    def after_update(self, step: int, model: LanguageModel, optimizer: Any, *, applied: bool) -> Any:
        self.updates += 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-3 * self.updates)
        return {}


class CountsPasses(Plain):
    """Scales its gradient by the number of hooks on the model, which observing changes."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        result = super().forward_backward(model, batch, fabric)
        hooks = sum(len(module._forward_hooks) for module in model.modules())
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1.0 + hooks)
        return result


class AddsAHead(Plain):
    """A head that is left in the model of the checkpoint."""

    def plain_tensors(self, model: LanguageModel) -> dict[str, torch.Tensor]:
        tensors = super().plain_tensors(model)
        return {f"mine.{name}": tensor for name, tensor in tensors.items()}


class HidesItsChange(Plain):
    """Trains a model with a factor that its checkpoint does not have."""

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        model.get_submodule("de_embedding_proj").register_forward_hook(lambda module, inputs, output: output * 1.5)
        return model

    def plain_model(self, model: LanguageModel) -> LanguageModel:
        plain = super().plain_model(model)
        plain.get_submodule("de_embedding_proj")._forward_hooks.clear()
        return plain


class SumsTwice(Plain):
    """Adds up the loss over processes, which the loop does as well."""

    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Any) -> StepResult:
        result = super().forward_backward(model, batch, fabric)
        assert result.loss_sum is not None
        return StepResult(result.loss_sum * fabric.world_size)


class Mine(Plain):
    """Plain by another name."""


CULPRITS = [
    (Silent, "it says in one sentence what it is"),
    (Untyped, "its settings are keyword-only and typed"),
    (WrongDefault, "its settings survive being written to YAML"),
    (NoHeir, "it can be named in a training file"),
    (NotFinite, "its loss is one finite, detached number, and every series is one in some step"),
    (TakesTheName, "its series have names of their own"),
    (Draws, "it draws from no random stream but its own"),
    (DrawsFromTorch, "it draws from no random stream but its own"),
    (MeanOfMicroBatches, "four micro-batches make the same updates as one"),
    (Uphill, "it learns"),
    (Jittered, "it does the same twice"),
    (Forgets, "a run that was interrupted ends bit for bit where an uninterrupted one does"),
    (CountsPasses, "observing does not disturb it"),
    (AddsAHead, "its checkpoints and snapshots have the names and shapes of plain training"),
    (HidesItsChange, "the model in a checkpoint is the model that was trained"),
    (SumsTwice, TWO_PROCESSES),
]


@pytest.mark.parametrize(("kind", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_method_is_found_out(kind: Callable[..., Any], promise: str, workshop: Workshop):
    others = {each.name for each in METHOD_PROMISES.promises} - {promise}
    findings = check_method(kind, workshop=workshop, leave_out=others)  # type: ignore[arg-type]
    assert promise in broken_promises(findings)


def test_every_promise_has_a_method_that_breaks_it():
    assert without_a_culprit(METHOD_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_a_method_of_ones_own_keeps_all_promises_of_one_process(workshop: Workshop):
    assert complaints(check_method(Mine, workshop=workshop, processes=False)) == []
