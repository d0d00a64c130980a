"""Choices from a random stream that mean the same everywhere: made of uniform numbers only."""

from __future__ import annotations

from typing import Any

import numpy
import torch

Floats = numpy.ndarray[Any, numpy.dtype[numpy.float64]]
Integers = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


def uniform(draws: torch.Generator, *shape: int) -> Floats:
    """Numbers in [0, 1)."""
    drawn: Floats = torch.rand(*shape, generator=draws, dtype=torch.float64).numpy()
    return drawn


def choice(draws: torch.Generator, size: int, count: int) -> Integers:
    """`count` distinct numbers below `size`, in random order."""
    return numpy.argsort(uniform(draws, size), kind="stable")[:count]


def weighted_choice(draws: torch.Generator, weights_N: Floats, count: int) -> Integers:
    """`count` distinct places, drawn one after the other with probability in proportion to the weights left.

    Each place gets an exponential waiting time of rate w, and the first ones are taken. Source: Efraimidis and Spirakis (2006).
    """
    waiting_N = -numpy.log1p(-uniform(draws, len(weights_N))) / weights_N
    return numpy.argsort(waiting_N, kind="stable")[:count]
