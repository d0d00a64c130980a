"""The global random streams of a process: whether something drew from them, and whether its result depends on them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import nn

from picolm.evaluate.undisturbed import random_streams_kept
from picolm.testing.findings import Broken

TORCH = "torch's default generator"


def states() -> dict[str, str]:
    """The state of each global stream, as text that can be compared."""
    numpys: Any = numpy.random.get_state(legacy=False)
    return {
        "Python's random": repr(random.getstate()),
        "numpy.random": repr((numpys["state"]["key"].tolist(), numpys["state"]["pos"], numpys["has_gauss"], numpys["gauss"])),
        TORCH: repr(torch.get_rng_state().numpy().tobytes()),
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


@contextmanager
def draws_inside_forward(model: nn.Module) -> Iterator[None]:
    """Broken if the body draws from Python's or NumPy's stream, or from torch's outside of a forward pass of the model."""
    with random_streams_kept():
        before = states()
        known, outside = [before[TORCH]], []

        def entering(module: nn.Module, arguments: Any) -> None:
            outside.append(states()[TORCH] != known[0])

        def leaving(module: nn.Module, arguments: Any, output: Any) -> None:
            known[0] = states()[TORCH]

        hooks = [model.register_forward_pre_hook(entering), model.register_forward_hook(leaving)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        after = states()
        touched = [name for name, state in after.items() if name != TORCH and state != before[name]]
        if any(outside) or after[TORCH] != known[0]:
            touched.append(f"{TORCH} outside of a forward pass")
    if touched:
        raise Broken(f"it draws from {' and '.join(touched)}: draw from `draws_for(facts.seed, ...)`")
