"""What an optimiser and a schedule look like, and where they are registered.

An optimiser is a function `build(parameters, *, lr, ...options) -> torch.optim.Optimizer`, where `parameters` are named.
A schedule is a function `build(*, max_steps, warmup_steps, ...options) -> Schedule`. Their keyword-only parameters are
the settings. Copy a function in `optimizers.py` or `schedules.py` to write your own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from picolm.base.registry import Named, Registry, checked_options

OPTIMIZERS = Registry("optimizer", builtin_modules=("picolm.optim.optimizers",))
SCHEDULES = Registry("schedule", builtin_modules=("picolm.optim.schedules",))

Schedule = Callable[[int], float]
"""Update number (0 for the first) -> factor on the peak learning rate: a pure function, so it has no state to save."""


def build_schedule(named: Named, *, max_steps: int, warmup_steps: int) -> Schedule:
    """The schedule called `named`, for a run of `max_steps` updates."""
    builder = SCHEDULES.find(named.name)
    options = {"max_steps": max_steps, "warmup_steps": warmup_steps, **named.options}
    schedule: Schedule = builder(**checked_options(builder, options, f"training.optimization.lr_scheduler ({named.name})"))
    return schedule


def optimizer_options(named: Named, shared: dict[str, Any], *, lr: float) -> dict[str, Any]:
    """All options of the optimiser called `named`: its own, those set in `training.optimization`, and its defaults.

    A shared setting that this optimiser does not have is a PicoError: nothing is dropped silently.
    """
    builder = OPTIMIZERS.find(named.name)
    given = {key: value for key, value in shared.items() if value is not None}
    return checked_options(builder, {"lr": lr, **given, **named.options}, f"training.optimization (optimizer {named.name})")
