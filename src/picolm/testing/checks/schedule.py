"""What a schedule of the learning rate promises: a pure function of the update number, cheap at any of them."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from picolm.optim.contract import Schedule
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding
from picolm.testing.streams import left_alone, seeded

SCHEDULE_PROMISES = CheckList("schedule", *COMMON)
MAX_STEPS, WARMUP_STEPS = 1000, 100
LONG_RUN = 1_000_000
_promise = SCHEDULE_PROMISES.promise


@dataclass(frozen=True)
class ScheduleSubject:
    """A builder of schedules with the options it is examined with."""

    thing: Callable[..., Schedule]
    options: Mapping[str, Any]

    def build(self, *, max_steps: int = MAX_STEPS, warmup_steps: int = WARMUP_STEPS) -> Schedule:
        """The schedule of a run of `max_steps` updates."""
        given = {"max_steps": max_steps, "warmup_steps": warmup_steps}
        return self.thing(**{**self.options, **given})

    def factors(self) -> list[float]:
        """The factor of every update of a run, in order."""
        schedule = self.build()
        return [schedule(step) for step in range(MAX_STEPS)]


def check_schedule(builder: Callable[..., Schedule], *, options: Mapping[str, Any] | None = None) -> list[Finding]:
    """What a schedule keeps of its promises. `builder`: a function with keyword-only `max_steps` and `warmup_steps`."""
    given = {"max_steps": MAX_STEPS, "warmup_steps": WARMUP_STEPS}
    chosen = {**(options or {}), **given}
    return examine(SCHEDULE_PROMISES, builder, chosen, lambda: ScheduleSubject(builder, filled(builder, chosen, "schedule")))


@_promise(
    "every factor is a finite number between 0 and 1",
    why="the factor multiplies the peak learning rate `lr`; above 1 the setting is not the peak, below 0 training runs uphill.",
)
def _bounded(subject: ScheduleSubject) -> str:
    factors = subject.factors()
    for step, factor in enumerate(factors):
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise Broken(f"at update {step} it returns a {type(factor).__name__}, not a number")
        if not math.isfinite(factor) or not -1e-12 <= factor <= 1 + 1e-12:
            raise Broken(f"at update {step} the factor is {factor}")
    return f"from {min(factors):.3g} to {max(factors):.3g}"


@_promise(
    "it is a pure function of the update number",
    why="a resumed run asks for update 5,000 first; if the answer depends on what was asked before, or on a random draw, "
    "the resumed run differs from an uninterrupted one. It has no state to save.",
)
def _pure(subject: ScheduleSubject) -> None:
    expected = subject.factors()
    with seeded(1):
        again = subject.build()
        order = random.Random(0).sample(range(MAX_STEPS), MAX_STEPS)
    with left_alone(), seeded(2):
        shuffled = {step: again(step) for step in order}
    different = [step for step in range(MAX_STEPS) if shuffled[step] != expected[step]]
    if different:
        step = min(different)
        raise Broken(f"update {step} gives {expected[step]} when asked in order and {shuffled[step]} when asked out of order")


@_promise("it leaves the random streams alone", why="a draw would shift every later draw of dropout and data order in the run.")
def _leaves_streams_alone(subject: ScheduleSubject) -> None:
    with left_alone("a schedule needs no randomness"):
        schedule = subject.build()
        for step in range(0, MAX_STEPS, 10):
            schedule(step)


@_promise(
    "one call costs the same at every update",
    why="it is asked once per update: a loop over all earlier ones makes a long run quadratic.",
)
def _constant_cost(subject: ScheduleSubject) -> str:
    schedule = subject.build(max_steps=LONG_RUN)
    early, late = (_lines_run(schedule, step) for step in (LONG_RUN // 1000, LONG_RUN - 1))
    if late > 4 * early + 40:
        raise Broken(f"update {LONG_RUN // 1000:,} runs {early} lines of Python, update {LONG_RUN - 1:,} runs {late:,}")
    return f"{late} lines of Python at update {LONG_RUN - 1:,}"


@_promise(
    "it rises during the warm-up",
    why="`lr_warmup_steps` is the setting of the training file; a schedule that ignores it does silently what was not asked.",
)
def _warms_up(subject: ScheduleSubject) -> None:
    factors = subject.factors()[: WARMUP_STEPS + 1]
    falls = [step for step in range(WARMUP_STEPS) if factors[step + 1] < factors[step] - 1e-12]
    if falls:
        raise Broken(f"with a warm-up of {WARMUP_STEPS} updates it falls after update {falls[0]}")
    if not factors[0] < factors[WARMUP_STEPS]:
        raise Broken(f"it is {factors[0]} at update 0 and {factors[WARMUP_STEPS]} at the end of a warm-up of {WARMUP_STEPS}")


@_promise(
    "it works without a warm-up, and where the warm-up is the whole run",
    why="both are legal settings; a division by zero at update 0 ends a run before it begins.",
)
def _edges(subject: ScheduleSubject) -> None:
    for warmup_steps in (0, MAX_STEPS):
        schedule = subject.build(warmup_steps=warmup_steps)
        for step in (0, 1, MAX_STEPS - 1, MAX_STEPS):
            if not math.isfinite(schedule(step)):
                raise Broken(f"with warmup_steps={warmup_steps} of {MAX_STEPS} the factor of update {step} is {schedule(step)}")


def _lines_run(schedule: Schedule, step: int) -> int:
    """Lines of Python that one call runs, in whatever functions it calls."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        schedule(step)
    finally:
        sys.settrace(before)
    return count
