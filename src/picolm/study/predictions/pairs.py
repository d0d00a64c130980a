"""Shared by the kinds that compare two variants by one effect per seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from picolm.base.errors import PicoError
from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, PowerModel, Sides, scores, sign_flip_method
from picolm.study.spec_predictions import Pair
from picolm.study.statistics.paired import Floats, p_floor, sign_flip_p

ValuesTest = Callable[[Floats], Sides]
"""From effects, one per seed and possibly infinite, to p values."""


def label_of(study: StudyConfig, measure: str) -> str:
    """What the report calls a measure."""
    return study.measures[measure].label or measure


def sign_of(direction: str) -> float:
    """What a difference is multiplied by, so that positive is as predicted."""
    return -1.0 if direction in ("lower", "decreasing") else 1.0


def pair_effects(
    prediction: Pair, measure: str, data: Measured, seeds: Sequence[int], compare: Callable[[float, float], float]
) -> tuple[Effect, ...]:
    """`compare(of, versus)` of each seed, with both values."""
    effects = []
    for seed in seeds:
        of, versus = (data.reduced(measure, variant, seed) for variant in (prediction.of, prediction.versus))
        assert of.value is not None and versus.value is not None
        notes = [
            f"{variant}: {found.note}" for variant, found in ((prediction.of, of), (prediction.versus, versus)) if found.note
        ]
        value = compare(of.value, versus.value)
        effects.append(Effect(seed, 0.0 if math.isnan(value) else value, of.value, versus.value, "; ".join(notes)))
    return tuple(effects)


def difference_of(of: float, versus: float) -> float:
    return of - versus


def log_ratio_of(of: float, versus: float) -> float:
    """log(of / versus); PicoError for values that have no logarithm."""
    if not (of > 0 and versus > 0):
        raise PicoError(f"a ratio of {of:g} and {versus:g} has no logarithm", "predict a difference instead, or mend the measure")
    return math.log(of) - math.log(versus) if math.isfinite(of) or math.isfinite(versus) else 0.0


def beyond(at_least: float) -> ValuesTest:
    """Is the effect larger than `at_least`?"""

    def test(effects: Floats) -> Sides:
        return Sides(
            supported=float(sign_flip_p(scores(effects, at_least))),
            refuted=float(sign_flip_p(-scores(effects, at_least))),
            reversed=float(sign_flip_p(-scores(effects, 0.0))),
            negligible=float(sign_flip_p(scores(effects, -at_least))) if at_least > 0 else None,
        )

    return test


def outside(margin: float) -> ValuesTest:
    """Is the effect, of either sign, larger than `margin`?"""

    def test(effects: Floats) -> Sides:
        above, below = (float(sign_flip_p(scores(sign * effects, margin))) for sign in (1.0, -1.0))
        return Sides(supported=min(1.0, 2.0 * min(above, below)), refuted=_within(effects, margin) if margin > 0 else None)

    return test


def within(margin: float) -> ValuesTest:
    """Is the effect, of either sign, smaller than `margin`?"""

    def test(effects: Floats) -> Sides:
        mirrored = outside(margin)(effects)
        return Sides(supported=_within(effects, margin), refuted=mirrored.supported)

    return test


def _within(effects: Floats, margin: float) -> float:
    return max(float(sign_flip_p(scores(sign * effects, -margin))) for sign in (1.0, -1.0))


def tested(
    effects: tuple[Effect, ...], test: ValuesTest, *, at_least: float, power_model: PowerModel | None = None, ranked: bool = False
) -> Evidence:
    """Evidence from one effect per seed."""
    values = np.array([effect.value for effect in effects], dtype=np.float64)
    if not len(values):
        return Evidence(
            effects, None, untestable="no seed has ended in every variant", at_least=at_least, power_model=power_model
        )
    return Evidence(
        effects=effects,
        sides=test(values),
        test=lambda kept: test(values[kept]),
        method=sign_flip_method(len(values), ranked or not np.isfinite(values).all()),
        floor=p_floor(len(values)),
        at_least=at_least,
        power_model=power_model,
    )


def with_facts(evidence: Evidence, *facts: Fact) -> Evidence:
    return replace(evidence, facts=(*evidence.facts, *facts))


def two_sided(evidence: Evidence) -> Evidence:
    """The same with the floor of a test in which either sign counts; a refutation then means too small a difference."""
    floor = None if evidence.floor is None else min(1.0, 2 * evidence.floor)
    return replace(evidence, floor=floor, sides_counted=2, refuted_word="too small")
