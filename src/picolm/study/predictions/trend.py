"""`trend`: a measure, or a gap between variants, has a slope over a dose or size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, EffectPower, Evidence, PowerModel, PredictionKind, kind
from picolm.study.predictions.pairs import beyond, label_of, sign_of, tested, with_facts
from picolm.study.spec_predictions import TrendPrediction
from picolm.study.statistics.paired import Floats
from picolm.study.statistics.trends import page_trend, slopes


def values_of(data: Measured, measure: str, variants: Sequence[str], seeds: Sequence[int]) -> Floats:
    """The measure by seed (rows) and variant (columns)."""
    return np.array([[data.reduced(measure, variant, seed).value for variant in variants] for seed in seeds], dtype=np.float64)


@kind(TrendPrediction)
class Trend(PredictionKind[TrendPrediction]):
    """One least-squares slope per seed, turned so that positive is as predicted; sign-flip test of slope - at_least."""

    def sentence(self, prediction: TrendPrediction, study: StudyConfig) -> str:
        way = "rises" if prediction.direction == "increasing" else "falls"
        gap = "the gap in " if prediction.minus else ""
        unit = "per factor e" if prediction.x == "log" else "per unit"
        by = f" by more than {prediction.at_least:g} {unit}" if prediction.at_least else ""
        doses = ", ".join(f"{name} {dose:g}" for name, dose in prediction.over.items())
        return f"{gap}{label_of(study, prediction.measure)} {way} with the dose ({doses}){by}"

    def evidence(self, prediction: TrendPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        names, sign = list(prediction.over), sign_of(prediction.direction)
        doses = [math.log(dose) if prediction.x == "log" else dose for dose in prediction.over.values()]
        values_SV = values_of(data, prediction.measure, names, seeds).reshape(len(seeds), len(names))
        for column, name in enumerate(names):
            if name in prediction.minus:
                with np.errstate(invalid="ignore"):
                    values_SV[:, column] -= values_of(data, prediction.measure, [prediction.minus[name]], seeds)[:, 0]
        effects = tuple(
            Effect(seed, sign * _slope(row, doses), note="" if np.isfinite(row).all() else "a run diverged")
            for seed, row in zip(seeds, values_SV, strict=True)
        )
        evidence = tested(
            effects, beyond(prediction.at_least), at_least=prediction.at_least, power_model=self.power_model(prediction)
        )
        evidence = replace(evidence, scale="slope")
        if len(seeds) < 2 or prediction.minus:
            return evidence
        page = page_trend(sign * values_SV[:, np.argsort(doses, kind="stable")])
        return with_facts(
            evidence, Fact(name="Page's L", value=page.statistic, note=f"p = {page.p:.3g}, ranks within seeds", is_test=True)
        )

    def power_model(self, prediction: TrendPrediction) -> PowerModel:
        return EffectPower(prediction.at_least, prediction.expect)


def _slope(row: Floats, doses: Sequence[float]) -> float:
    """The slope; with diverged runs infinite, by the side of the doses they are on, and 0 where they pull both ways."""
    if np.isfinite(row).all():
        return float(slopes(row[None], doses)[0])
    centred = np.asarray(doses) - float(np.mean(doses))
    pulls = {float(np.sign(value) * np.sign(dose)) for value, dose in zip(row, centred, strict=True) if np.isinf(value)}
    return math.inf * pulls.pop() if len(pulls) == 1 and 0.0 not in pulls else 0.0
