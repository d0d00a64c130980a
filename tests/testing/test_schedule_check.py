"""The conformance check of schedules: everything registered passes, and each promise has a schedule that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from picolm.optim.contract import SCHEDULES, Schedule
from picolm.testing.checks import check_schedule, complaints
from picolm.testing.checks.schedule import SCHEDULE_PROMISES

from .broken import broken_promises, without_a_culprit


@pytest.mark.parametrize("name", [entry.name for entry in SCHEDULES.entries()])
def test_every_registered_schedule_keeps_its_promises(name: str):
    assert complaints(check_schedule(SCHEDULES.find(name))) == []


def rises(step: int, warmup_steps: int) -> float:
    return min(1.0, step / warmup_steps) if warmup_steps else 1.0


def without_docstring(*, max_steps: int, warmup_steps: int) -> Schedule:
    return lambda step: rises(step, warmup_steps)


def untyped(*, max_steps: int, warmup_steps: int, share=0.5) -> Schedule:  # type: ignore[no-untyped-def]
    """Constant."""
    return lambda step: rises(step, warmup_steps)


def wrong_default(*, max_steps: int, warmup_steps: int, share: float = "a half") -> Schedule:  # type: ignore[assignment]
    """Constant."""
    return lambda step: rises(step, warmup_steps)


def above_the_peak(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Twice the peak."""
    return lambda step: 2 * rises(step, warmup_steps)


def remembers(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Counts its own calls."""
    calls = 0

    def factor(step: int) -> float:
        nonlocal calls
        calls += 1
        return rises(calls, warmup_steps)

    return factor


def draws(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Jitters, though not so that one sees it."""
    return lambda step: rises(step, warmup_steps) + 0.0 * random.random()


def adds_up(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Decays by multiplying once per earlier update."""

    def factor(step: int) -> float:
        value = 1.0
        for _ in range(step):
            value *= 0.9999
        return value * rises(step, warmup_steps)

    return factor


def ignores_the_warmup(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Linear decay from the first update on."""
    return lambda step: max(0.0, 1 - step / max_steps)


def divides_by_the_warmup(*, max_steps: int, warmup_steps: int) -> Schedule:
    """Constant after a warm-up that must not be 0."""
    return lambda step: min(1.0, step / warmup_steps)


CULPRITS = [
    (without_docstring, "it says in one sentence what it is"),
    (untyped, "its settings are keyword-only and typed"),
    (wrong_default, "its settings survive being written to YAML"),
    (above_the_peak, "every factor is a finite number between 0 and 1"),
    (remembers, "it is a pure function of the update number"),
    (draws, "it leaves the random streams alone"),
    (adds_up, "one call costs the same at every update"),
    (ignores_the_warmup, "it rises during the warm-up"),
    (divides_by_the_warmup, "it works without a warm-up, and where the warm-up is the whole run"),
]


@pytest.mark.parametrize(("builder", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_schedule_is_found_out(builder: Callable[..., Any], promise: str):
    assert promise in broken_promises(check_schedule(builder))


def test_every_promise_has_a_schedule_that_breaks_it():
    assert without_a_culprit(SCHEDULE_PROMISES, [promise for _, promise in CULPRITS]) == set()
