"""The conformance check of optimisers: everything registered passes, and each promise has an optimiser that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

from picolm.optim.contract import OPTIMIZERS
from picolm.testing.checks import check_optimizer, complaints
from picolm.testing.checks.optimizer import OPTIMIZER_PROMISES

from .broken import broken_promises, without_a_culprit

Named = Iterable[tuple[str, nn.Parameter]]


@pytest.mark.parametrize("name", [entry.name for entry in OPTIMIZERS.entries()])
def test_every_registered_optimizer_keeps_its_promises(name: str):
    assert complaints(check_optimizer(OPTIMIZERS.find(name))) == []


class Descent(torch.optim.Optimizer):
    """Gradient descent, to be spoilt by its heirs."""

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def direction(self, parameter: nn.Parameter) -> torch.Tensor:
        assert parameter.grad is not None
        return parameter.grad

    def rate(self, group: dict[str, Any]) -> float:
        return float(group["lr"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= self.rate(group) * self.direction(parameter)


class KeepsItsRate(Descent):
    """Remembers the first rate."""

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, lr)
        self.first = lr

    def rate(self, group: dict[str, Any]) -> float:
        return self.first


class HidesItsState(Descent):
    """Counts its steps where a checkpoint does not look, and slows down."""

    def __init__(self, parameters: Iterable[Any], lr: float) -> None:
        super().__init__(parameters, lr)
        self.steps = 0

    def direction(self, parameter: nn.Parameter) -> torch.Tensor:
        self.steps += 1
        return super().direction(parameter) / self.steps


class Noisy(Descent):
    """Adds noise from the global stream."""

    def direction(self, parameter: nn.Parameter) -> torch.Tensor:
        return super().direction(parameter) + 0.1 * torch.randn_like(parameter)


class DrawsNeedlessly(Descent):
    """Draws and throws it away."""

    def direction(self, parameter: nn.Parameter) -> torch.Tensor:
        torch.rand(1)
        return super().direction(parameter)


class MovesFrozenOnes(Descent):
    """Decays also what has no gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter *= 1 - 0.1 * group["lr"]
        super().step()


class Uphill(Descent):
    """The wrong sign."""

    def direction(self, parameter: nn.Parameter) -> torch.Tensor:
        return -super().direction(parameter)


def building(kind: type[Descent]) -> Callable[..., Descent]:
    def build(parameters: Named, *, lr: float) -> Descent:
        """Gradient descent, spoilt."""
        return kind([parameter for _, parameter in parameters], lr)

    build.__name__ = kind.__name__
    return build


def without_docstring(parameters: Named, *, lr: float) -> Descent:
    return Descent([parameter for _, parameter in parameters], lr)


def untyped(parameters: Named, *, lr: float, share=0.5) -> Descent:  # type: ignore[no-untyped-def]
    """Gradient descent."""
    return Descent([parameter for _, parameter in parameters], lr)


def wrong_default(parameters: Named, *, lr: float, share: float = "half") -> Descent:  # type: ignore[assignment]
    """Gradient descent."""
    return Descent([parameter for _, parameter in parameters], lr)


def forgets_vectors(parameters: Named, *, lr: float) -> Descent:
    """Gradient descent on matrices alone."""
    return Descent([parameter for _, parameter in parameters if parameter.dim() == 2], lr)


CULPRITS = [
    (without_docstring, "it says in one sentence what it is"),
    (untyped, "its settings are keyword-only and typed"),
    (wrong_default, "its settings survive being written to YAML"),
    (forgets_vectors, "it has every parameter in exactly one group"),
    (building(Uphill), "it goes downhill on a quadratic"),
    (building(KeepsItsRate), "it follows the learning rate of its groups"),
    (building(HidesItsState), "it continues bit for bit from its saved state"),
    (building(Noisy), "it does the same twice"),
    (building(DrawsNeedlessly), "it leaves the random streams alone"),
    (building(MovesFrozenOnes), "it passes over a parameter without a gradient"),
]


@pytest.mark.parametrize(("builder", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_optimizer_is_found_out(builder: Callable[..., Any], promise: str):
    assert promise in broken_promises(check_optimizer(builder))


def test_every_promise_has_an_optimizer_that_breaks_it():
    assert without_a_culprit(OPTIMIZER_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_plain_gradient_descent_keeps_all_promises():
    assert complaints(check_optimizer(building(Descent))) == []
