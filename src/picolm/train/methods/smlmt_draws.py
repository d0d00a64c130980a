"""Random numbers that depend on nothing but what they are for: a seed, a step, an episode, a purpose.

There is no generator to carry along, so every process draws the same and a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy

Floats = numpy.ndarray[Any, numpy.dtype[numpy.float64]]
Integers = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


def draws_for(seed: int, purpose: str, *numbers: int) -> numpy.random.Generator:
    """The stream of one purpose: `draws_for(seed, "episode", step, 3)`. Counter-based (Philox), keyed by SHA-256."""
    text = "/".join(["picolm.method.maml", purpose, str(seed), *map(str, numbers)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return numpy.random.Generator(numpy.random.Philox(key=key))


def weighted_choice(draws: numpy.random.Generator, weights_N: Floats, count: int) -> Integers:
    """`count` distinct places, drawn one after the other with probability in proportion to the weights left.

    Each place gets an exponential waiting time of rate w, and the first ones are taken. Source: Efraimidis and Spirakis (2006).
    """
    waiting_N = -numpy.log1p(-draws.random(len(weights_N))) / weights_N
    return numpy.argsort(waiting_N, kind="stable")[:count]


def choice(draws: numpy.random.Generator, size: int, count: int) -> Integers:
    """`count` distinct numbers below `size`, in random order."""
    return numpy.argsort(draws.random(size), kind="stable")[:count]


def integers(draws: numpy.random.Generator, low: int, high: int, count: int) -> Integers:
    """`count` independent numbers from `low` to `high - 1`."""
    return (low + numpy.floor(draws.random(count) * (high - low))).astype(numpy.int64)
