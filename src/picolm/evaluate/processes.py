"""Several processes score one set of sequences together: each its batches, then everyone has all results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")


class Processes(Protocol):
    """The processes that take part, this one being number `rank` of `count`."""

    @property
    def rank(self) -> int: ...
    @property
    def count(self) -> int: ...
    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over all processes, element by element, on every process."""
        ...


class OneProcess:
    """No others."""

    rank = 0
    count = 1

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values


class TorchProcesses:
    """The default group of torch.distributed."""

    def __init__(self, device: torch.device) -> None:
        """`device`: where the group's collectives run."""
        self.rank = torch.distributed.get_rank()
        self.count = torch.distributed.get_world_size()
        self._device = device

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
        torch.distributed.all_reduce(total)
        summed: NDArray[np.float64] = total.cpu().numpy()
        return summed


def all_processes(device: torch.device) -> Processes:
    """Every process of a distributed run; just this one if there is no such run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        return TorchProcesses(device)
    return OneProcess()


def share_of(batches: Sequence[T], processes: Processes) -> Iterator[tuple[T, bool]]:
    """This process's batches and whether their results count.

    Every process gets equally many, some of which do not count: a sharded model needs all processes in every forward pass.
    """
    rounds = -(-len(batches) // processes.count)
    for turn in range(rounds):
        index = turn * processes.count + processes.rank
        yield batches[min(index, len(batches) - 1)], index < len(batches)
