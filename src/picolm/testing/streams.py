"""The global random streams of a process: whether something drew from them, and whether its result depends on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from picolm.evaluate.undisturbed import random_streams_kept
from picolm.testing.findings import Broken


def states() -> dict[str, str]:
    """The state of each global stream, as text that can be compared."""
    numpys: Any = numpy.random.get_state(legacy=False)
    return {
        "Python's random": repr(random.getstate()),
        "numpy.random": repr((numpys["state"]["key"].tolist(), numpys["state"]["pos"], numpys["has_gauss"], numpys["gauss"])),
        "torch's default generator": repr(torch.get_rng_state().numpy().tobytes()),
    }


@contextmanager
def left_alone(hint: str = "draw from a generator of your own") -> Iterator[None]:
    """Broken if the body draws from, or seeds, a global random stream. Afterwards the streams are as before."""
    with random_streams_kept():
        before = states()
        yield
        touched = [name for name, state in states().items() if state != before[name]]
    if touched:
        raise Broken(f"it draws from {' and '.join(touched)}: {hint}")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global streams start from `seed` inside, and are as before afterwards."""
    with random_streams_kept():
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        yield
