"""What float16 needs: its smallest number is 6e-8, so the loss is scaled up before the backward pass and gradients down after it.

The way of Micikevicius et al. (2018), "Mixed Precision Training", with one difference: a step whose gradient overflows is not
lost but made again from the same rows with half the scale. So every step has its update, and every snapshot its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

FIRST_SCALE, UPDATES_BEFORE_GROWTH = 2.0**16, 2000
"""As in torch's GradScaler. Powers of two, so that scaling rounds nothing."""


class LossScale:
    """The current factor. Stands where Fabric's plugin for mixed precision expects torch's GradScaler, which drops updates."""

    def __init__(self, *, active: bool) -> None:
        self.active = active
        """Whether this run needs one; if not, the factor stays 1."""
        self.value = FIRST_SCALE if active else 1.0
        self.updates = 0
        """Updates since the factor last changed."""

    def scale(self, loss: Tensor) -> Tensor:
        """The loss as it goes into the backward pass. Called by `fabric.backward`."""
        return loss * self.value

    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by the factor."""
        if self.value == 1.0:
            return
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= self.value

    def step(self, optimizer: torch.optim.Optimizer, *arguments: Any, **named: Any) -> Any:
        """The optimiser's step, whose gradients are unscaled already. Called by Fabric."""
        return optimizer.step(*arguments, **named)

    def update(self) -> None:
        """Count an update; after many without overflow the factor doubles. Called by Fabric after `step`."""
        self.updates += 1
        if self.active and self.updates >= UPDATES_BEFORE_GROWTH:
            self.value, self.updates = 2 * self.value, 0

    def restore(self, value: float | None, updates: int) -> None:
        """Take back what a checkpoint kept, if it kept any and this run needs one."""
        if self.active and value is not None:
            self.value, self.updates = value, updates

    def fitting(self, attempt: Callable[[], T], overflowed: Callable[[T], bool]) -> T:
        """What `attempt` gives, called again with half the factor while it overflows.

        If a factor of 1 does not help, the factor is not to blame: it stays as it was, and the last attempt counts.
        """
        result, before = attempt(), (self.value, self.updates)
        while self.active and overflowed(result):
            if self.value == 1.0:
                self.value, self.updates = before
                break
            self.value, self.updates = self.value / 2, 0
            result = attempt()
        return result

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The factor is afterwards what it was: for passes that training does not depend on."""
        before = self.value, self.updates
        yield
        self.value, self.updates = before


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor has an infinity or a NaN: one question to their device."""
    finite = [tensor.isfinite().all() for tensor in tensors]
    return not finite or bool(torch.stack(finite).all())
