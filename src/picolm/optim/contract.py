"""What an optimiser and a schedule look like, and where they are registered.

An optimiser is a function `build(parameters, *, lr, ...options) -> torch.optim.Optimizer`, where `parameters` are named.
A schedule is a function `build(*, max_steps, warmup_steps, ...options) -> Schedule`. Their keyword-only parameters are
the settings; a setting `<what>_steps` of a schedule may also be given as `<what>_tokens`. Copy a function in
`optimizers.py` or `schedules.py` to write your own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from picolm.base.errors import PicoError
from picolm.base.registry import Named, Registry, checked_options

OPTIMIZERS = Registry("optimizer", builtin_modules=("picolm.optim.optimizers",))
SCHEDULES = Registry("schedule", builtin_modules=("picolm.optim.schedules",))

Schedule = Callable[[int], float]
"""Update number (0 for the first) -> factor on the peak learning rate: a pure function, so it has no state to save."""


def build_schedule(named: Named, *, max_steps: int, warmup_steps: int, tokens_per_step: int) -> Schedule:
    """The schedule called `named`, for a run of `max_steps` updates of `tokens_per_step` tokens."""
    builder = SCHEDULES.find(named.name)
    in_steps = tokens_as_steps(named.options, set(inspect.signature(builder).parameters), tokens_per_step)
    options = {"max_steps": max_steps, "warmup_steps": warmup_steps, **in_steps}
    schedule: Schedule = builder(**checked_options(builder, options, f"training.optimization.lr_scheduler ({named.name})"))
    return schedule


def tokens_as_steps(options: Mapping[str, Any], known: set[str], tokens_per_step: int) -> dict[str, Any]:
    """The options with every `<what>_tokens` that is known as `<what>_steps` turned into that, rounded up to whole updates."""
    converted: dict[str, Any] = {}
    for key, value in options.items():
        in_steps = key.removesuffix("_tokens") + "_steps"
        is_length = key.endswith("_tokens") and key not in known and in_steps in known
        if is_length and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PicoError(f"training.optimization.lr_scheduler: {key} = {value!r} is not a number of tokens")
        converted[in_steps if is_length else key] = math.ceil(value / tokens_per_step) if is_length else value
    return converted


def optimizer_options(named: Named, shared: dict[str, Any], *, lr: float) -> dict[str, Any]:
    """All options of the optimiser called `named`: its own, those set in `training.optimization`, and its defaults.

    A shared setting that this optimiser does not have is a PicoError: nothing is dropped silently.
    """
    builder = OPTIMIZERS.find(named.name)
    given = {key: value for key, value in shared.items() if value is not None}
    return checked_options(builder, {"lr": lr, **given, **named.options}, f"training.optimization (optimizer {named.name})")
