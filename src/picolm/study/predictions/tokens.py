"""`tokens_to_level`: one variant reaches a level with fewer tokens than another; some never reach it within the budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact
from picolm.study.measures import Measured
from picolm.study.predictions.contract import (
    Effect,
    EffectPower,
    Evidence,
    Positions,
    PowerModel,
    PredictionKind,
    Sides,
    kind,
    sign_flip_method,
)
from picolm.study.predictions.pairs import label_of
from picolm.study.spec_predictions import TokensToLevelPrediction
from picolm.study.statistics.censored import Speedup, speedup
from picolm.study.statistics.paired import Floats, p_floor, sign_flip_p


@kind(TokensToLevelPrediction)
class TokensToLevel(PredictionKind[TokensToLevelPrediction]):
    """d_s = log(slower / faster) as predicted; sign-flip test of d_s - log(at_least), by ranks once anything is censored."""

    def sentence(self, prediction: TokensToLevelPrediction, study: StudyConfig) -> str:
        measure = study.measures[prediction.measure]
        by = f" by a factor of more than {prediction.at_least:g}" if prediction.at_least > 1 else ""
        way = "sooner" if prediction.direction == "lower" else "later"
        goal = f"{label_of(study, prediction.measure)} ({measure.level:g})"
        return f"{prediction.of} reaches {goal} {way} than {prediction.versus}{by}"

    def evidence(self, prediction: TokensToLevelPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        if not seeds:
            return Evidence((), None, untestable="no seed has ended in every variant")
        pair = (prediction.of, prediction.versus)
        of, versus = (_Times.of_variant(data, prediction.measure, name, seeds) for name in pair)
        budget = min([*of.ends, *versus.ends])
        if not math.isfinite(budget):
            return Evidence((), None, untestable="every run diverged")
        fast, slow = (of, versus) if prediction.direction == "lower" else (versus, of)
        test = _SpeedupTest(fast, slow, budget, prediction.at_least)
        everything = test.at(np.arange(len(seeds)), prediction.at_least)
        ranked = everything.ranked
        times = [np.minimum(each.times, budget) for each in (of, versus, slow, fast)]
        effects = tuple(
            Effect(
                seed, float(np.log(times[2][at] / times[3][at])), float(times[0][at]), float(times[1][at]), _note(of, versus, at)
            )
            for at, seed in enumerate(seeds)
        )
        restricted = (everything.restricted_of, everything.restricted_versus)
        mean_of, mean_versus = restricted if prediction.direction == "lower" else restricted[::-1]
        return Evidence(
            effects=effects,
            sides=test(np.arange(len(seeds))),
            test=test,
            method=sign_flip_method(len(seeds), ranked),
            floor=p_floor(len(seeds)),
            scale="log ratio",
            at_least=math.log(prediction.at_least),
            power_model=self.power_model(prediction),
            interval=not ranked,
            facts=(
                Fact(name=f"restricted mean, {prediction.of}", value=mean_of, note=f"up to {budget:g}"),
                Fact(name=f"restricted mean, {prediction.versus}", value=mean_versus, note=f"up to {budget:g}"),
                Fact(name="runs that never got there", value=float(of.late(budget).sum() + versus.late(budget).sum())),
            ),
        )

    def power_model(self, prediction: TokensToLevelPrediction) -> PowerModel:
        expect = None if prediction.expect is None else math.log(prediction.expect)
        return EffectPower(math.log(prediction.at_least), expect)


class _Times:
    """When the runs of one variant reached the level, and where they ended."""

    def __init__(self, times: Floats, ends: list[float], reached: list[bool]) -> None:
        self.times = times
        self.ends = ends
        self._reached = np.array(reached)

    @classmethod
    def of_variant(cls, data: Measured, measure: str, variant: str, seeds: Sequence[int]) -> _Times:
        """A diverged run never gets there."""
        found = [data.reduced(measure, variant, seed) for seed in seeds]
        finite = [each.value if each.value is not None and math.isfinite(each.value) else math.inf for each in found]
        ends = [each.end if each.end is not None else math.inf for each in found]
        reached = [not each.censored and math.isfinite(value) for each, value in zip(found, finite, strict=True)]
        return cls(np.array(finite), ends, reached)

    def late(self, budget: float) -> np.ndarray:
        return ~self._reached | (self.times > budget)

    def note(self, at: int) -> str:
        return "" if self._reached[at] else "never got there"


def _note(of: _Times, versus: _Times, at: int) -> str:
    return "; ".join(f"{name}: {note}" for name, note in (("of", of.note(at)), ("versus", versus.note(at))) if note)


class _SpeedupTest:
    """Sign-flip over seeds of the scores that `speedup` gives."""

    def __init__(self, fast: _Times, slow: _Times, budget: float, at_least: float) -> None:
        self._fast, self._slow, self._budget, self._at_least = fast, slow, budget, at_least

    def at(self, kept: Positions, factor: float) -> Speedup:
        fast, slow = self._fast, self._slow
        late = [each.late(self._budget)[kept] for each in (fast, slow)]
        return speedup(fast.times[kept], slow.times[kept], late[0], late[1], budget=self._budget, at_least=factor)

    def __call__(self, kept: Positions) -> Sides:
        scores = self.at(kept, self._at_least).scores
        return Sides(
            supported=float(sign_flip_p(scores)),
            refuted=float(sign_flip_p(-scores)),
            reversed=float(sign_flip_p(-self.at(kept, 1.0).scores)),
            negligible=float(sign_flip_p(self.at(kept, 1.0 / self._at_least).scores)) if self._at_least > 1 else None,
        )
