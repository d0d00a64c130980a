"""What the processes of one run tell each other. With one process each of these is the identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def total(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum over all processes, the same in each."""
    result = fabric.all_reduce(value, reduce_op="sum")
    assert isinstance(result, Tensor)
    return result


def gather(fabric: Fabric, value: Tensor) -> Tensor:
    """(processes, ...): the values of all processes in order. All must have one shape."""
    result = fabric.all_gather(value)
    assert isinstance(result, Tensor)
    return result if fabric.world_size > 1 else result.reshape(1, *value.shape)


def average_gradients(parameters: Iterable[Tensor], fabric: Fabric) -> None:
    """Put the mean over all processes into `.grad`, for passes in which nothing was exchanged.

    A parameter without gradient counts as zero where another process has one, and keeps none where none has.
    """
    if fabric.world_size == 1:
        return
    everything = list(parameters)
    has_gradient = torch.tensor([float(parameter.grad is not None) for parameter in everything], device=fabric.device)
    for parameter, holders in zip(everything, total(fabric, has_gradient).tolist(), strict=True):
        if holders:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = total(fabric, own) / fabric.world_size


def agree(fabric: Fabric, wish: bool) -> bool:
    """Whether any process has the wish: all get the same answer."""
    if fabric.world_size == 1:
        return wish
    return bool(total(fabric, torch.tensor(float(wish), device=fabric.device)))
