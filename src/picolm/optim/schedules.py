"""The built-in schedules: factor on the peak learning rate as a function of the update number, 0 for the first update."""

from __future__ import annotations

import bisect
import math

from picolm.base.errors import PicoError
from picolm.optim.contract import SCHEDULES, Schedule


@SCHEDULES.register("linear_with_warmup")
def linear_with_warmup(*, max_steps: int, warmup_steps: int) -> Schedule:
    """From 0 up to 1 over `warmup_steps`, then down to 0 at `max_steps`, both linearly: the paper's schedule."""
    return lambda step: _warmup(step, warmup_steps) if step < warmup_steps else _left(step, warmup_steps, max_steps)


@SCHEDULES.register("cosine")
def cosine(*, max_steps: int, warmup_steps: int, final_share: float = 0.1) -> Schedule:
    """Warm-up, then half a cosine down to `final_share` of the peak (Loshchilov and Hutter, 2017)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        done = 1.0 - _left(step, warmup_steps, max_steps)
        return final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


@SCHEDULES.register("wsd")
def wsd(
    *, max_steps: int, warmup_steps: int, decay_share: float = 0.2, decay_steps: int | None = None, final_share: float = 0.0
) -> Schedule:
    """Warm-up, stable, then linear decay to `final_share` over the last `decay_share` of the run, or the last `decay_steps`.

    Source: Hu et al. (2024).
    """
    decay_start = _decay_start(max_steps, warmup_steps, decay_share, decay_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        if step < decay_start:
            return 1.0
        return final_share + (1.0 - final_share) * _left(step, decay_start, max_steps)

    return factor


@SCHEDULES.register("1-sqrt")
def one_minus_sqrt(
    *, max_steps: int, warmup_steps: int, decay_share: float = 0.2, decay_steps: int | None = None, final_share: float = 0.0
) -> Schedule:
    """Warm-up, stable, then down by one minus the square root of the share of the decay done (Hägele et al., 2024)."""
    start = _decay_start(max_steps, warmup_steps, decay_share, decay_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        if step < start:
            return 1.0
        return final_share + (1.0 - final_share) * (1.0 - math.sqrt(1.0 - _left(step, start, max_steps)))

    return factor


@SCHEDULES.register("restarts")
def restarts(
    *, max_steps: int, warmup_steps: int, period_steps: int, period_factor: float = 1.0, final_share: float = 0.0
) -> Schedule:
    """Warm-up, then cosines from the peak down to `final_share`, each period `period_factor` times the one before.

    Source: Loshchilov and Hutter (2017), SGDR.
    """
    if period_steps < 1 or period_factor < 1.0:
        raise PicoError(
            f"training.optimization.lr_scheduler: period_steps = {period_steps}, period_factor = {period_factor}",
            "period_steps is at least 1, period_factor at least 1.0",
        )

    starts, length = [warmup_steps], float(period_steps)
    while starts[-1] <= max_steps:  # known once, so that a call need not count all periods before it
        starts.append(starts[-1] + round(length))
        length *= period_factor

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        step = min(step, max_steps)
        period = bisect.bisect_right(starts, step) - 1
        done = (step - starts[period]) / (starts[period + 1] - starts[period])
        return final_share + (1.0 - final_share) * 0.5 * (1.0 + math.cos(math.pi * done))

    return factor


@SCHEDULES.register("constant")
def constant(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Warm-up, then the peak learning rate to the end."""
    return lambda step: _warmup(step, warmup_steps) if step < warmup_steps else 1.0


def _decay_start(max_steps: int, warmup_steps: int, decay_share: float, decay_steps: int | None) -> int:
    """The first update of a decay at the end of the run."""
    if not 0.0 <= decay_share <= 1.0:
        raise PicoError(f"training.optimization.lr_scheduler: decay_share = {decay_share} is not between 0 and 1")
    start = round(max_steps * (1.0 - decay_share)) if decay_steps is None else max_steps - decay_steps
    return max(warmup_steps, start)


def _warmup(step: int, warmup_steps: int) -> float:
    return step / warmup_steps


def _left(step: int, start: int, end: int) -> float:
    """Share of the stretch from `start` to `end` that is still ahead at `step`."""
    return max(0.0, (end - step) / max(1, end - start))
