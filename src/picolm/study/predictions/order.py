"""`order`: a measure rises (falls) from each variant to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, Positions, PredictionKind, Sides, kind, scores, sign_flip_method
from picolm.study.predictions.pairs import label_of, sign_of
from picolm.study.predictions.trend import values_of
from picolm.study.spec_predictions import OrderPrediction
from picolm.study.statistics.paired import Floats, p_floor, sign_flip_p
from picolm.study.statistics.trends import page_trend


@kind(OrderPrediction)
class Order(PredictionKind[OrderPrediction]):
    """Every step between neighbours is tested by sign-flip, and the largest p counts: so `supported` means each step.

    Refuted: some step goes the other way, the smallest p times the number of steps. Page's test, which is about the trend
    over all variants, stands beside.
    """

    def sentence(self, prediction: OrderPrediction, study: StudyConfig) -> str:
        names = ", ".join(prediction.variants)
        way = "rises" if prediction.direction == "increasing" else "falls"
        return f"{label_of(study, prediction.measure)} {way} from each variant to the next: {names}"

    def evidence(self, prediction: OrderPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        if not seeds:
            return Evidence((), None, untestable="no seed has ended in every variant")
        oriented_SV = sign_of(prediction.direction) * values_of(data, prediction.measure, prediction.variants, seeds)
        with np.errstate(invalid="ignore"):
            steps_SV = np.nan_to_num(np.diff(oriented_SV, axis=1), nan=0.0, posinf=np.inf, neginf=-np.inf)
        effects = tuple(Effect(seed, float(row.min())) for seed, row in zip(seeds, steps_SV, strict=True))
        test = _StepsTest(steps_SV)
        page = page_trend(oriented_SV) if len(seeds) > 1 else None
        facts = (
            ()
            if page is None
            else (Fact(name="Page's L", value=page.statistic, note=f"p = {page.p:.3g} for a trend over all", is_test=True),)
        )
        return Evidence(
            effects=effects,
            sides=test(np.arange(len(seeds))),
            test=test,
            method=f"{sign_flip_method(len(seeds), False)}, every step",
            floor=p_floor(len(seeds)),
            scale="smallest step",
            interval=False,
            facts=facts,
            refuted_word="reversed",
        )


class _StepsTest:
    """The largest p over the steps between neighbours."""

    def __init__(self, steps_SV: Floats) -> None:
        self._steps_SV = steps_SV

    def __call__(self, kept: Positions) -> Sides:
        steps = self._steps_SV[kept].T
        rising = max(float(sign_flip_p(scores(step, 0.0))) for step in steps)
        falling = min(float(sign_flip_p(-scores(step, 0.0))) for step in steps)
        return Sides(supported=rising, refuted=min(1.0, len(steps) * falling))
