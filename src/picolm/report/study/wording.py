"""Numbers of a judgement in words: effects on their scale, intervals, p values, moments in time."""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

from picolm.report.words import duration
from picolm.study.judgement import Interval, Judgement, PredictionJudgement


def number(value: float | None) -> str:
    """Four figures, large numbers whole; `none` for what is not known."""
    if value is None:
        return "none"
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"


def effect(found: PredictionJudgement, value: float | None) -> str:
    """A value on the effect's scale: a factor where effects are logarithms of ratios, else with its sign."""
    if value is None:
        return "none"
    return f"{math.exp(min(value, 700.0)):.3g} x" if is_factor(found) else f"{value:+.3g}"


def is_factor(found: PredictionJudgement) -> bool:
    """Whether effects are logarithms of ratios, shown as factors."""
    return found.scale == "log ratio"


def between(found: PredictionJudgement, interval: Interval) -> str:
    """`+0.012 to +0.034`; an open end is said."""
    low = "no lower end" if interval.low is None else effect(found, interval.low)
    high = "no upper end" if interval.high is None else effect(found, interval.high)
    return f"{low} to {high}"


def level(interval: Interval) -> str:
    """`95 %`."""
    return f"{100 * interval.level:.3g} %"


def effect_with_interval(found: PredictionJudgement) -> str:
    """The mean effect and the interval that is drawn."""
    if found.mean is None:
        return "none"
    told = effect(found, found.mean)
    return f"{told} ({between(found, found.intervals[0])})" if found.intervals else told


def p_value(value: float | None) -> str:
    """Four figures; `not tested` where there is none."""
    return "not tested" if value is None else f"{value:.4g}"


def is_claim_refuted(found: PredictionJudgement) -> bool:
    """Whether the test that counts is the one against the prediction."""
    return found.verdict == "refuted"


def deciding_p(found: PredictionJudgement) -> tuple[float | None, float | None]:
    """(raw, adjusted) p of the statement that was decided; of the prediction itself where nothing was."""
    tests = found.tests
    if is_claim_refuted(found):
        return tests.p_refuted, tests.p_refuted_adjusted
    return tests.p_supported, tests.p_supported_adjusted


def verdict_word(found: PredictionJudgement) -> str:
    """The verdict; what was never in the family of a confirmatory study is called described."""
    return "described" if found.sub_label == "descriptive" else found.verdict


def sub_label(found: PredictionJudgement) -> str:
    """What is added to the verdict, such as `reversed`."""
    return "" if found.sub_label == "descriptive" else found.sub_label


def moment(text: str | None) -> str:
    """An ISO time as `2025-03-01 09:30 UTC`."""
    return "never" if text is None else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")


class LockTime(NamedTuple):
    """When a study was locked, relative to its runs."""

    told: str
    beside: str


def lock_before_runs(judgement: Judgement) -> LockTime:
    """When the study was locked relative to its first run that counts: what makes a prediction a prediction."""
    if judgement.locked is None:
        return LockTime("never", "nothing shows that the predictions came before the data")
    if judgement.first_run is None:
        return LockTime("locked", "no run that counts has begun")
    seconds = (datetime.fromisoformat(judgement.first_run) - datetime.fromisoformat(judgement.locked)).total_seconds()
    if seconds < 0:
        return LockTime("too late", f"locked {duration(-seconds)} after the first run that counts had begun")
    return LockTime("in time", f"locked {duration(seconds)} before the first run that counts began")
