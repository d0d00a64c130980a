"""`difference` and `ratio`: one variant lies below or above another, by more than a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from picolm.study.config import StudyConfig
from picolm.study.measures import Measured
from picolm.study.predictions.contract import EffectPower, Evidence, PowerModel, PredictionKind, kind
from picolm.study.predictions.items import with_items
from picolm.study.predictions.pairs import (
    beyond,
    difference_of,
    label_of,
    log_ratio_of,
    outside,
    pair_effects,
    sign_of,
    tested,
    two_sided,
)
from picolm.study.spec_predictions import DifferencePrediction, RatioPrediction
from picolm.study.statistics.paired import p_floor

WORDS = {"lower": "is lower than", "higher": "is higher than", "either": "differs from"}


@kind(DifferencePrediction)
class Difference(PredictionKind[DifferencePrediction]):
    """d_s = of - versus, turned so that positive is as predicted; sign-flip test of d_s - at_least."""

    def sentence(self, prediction: DifferencePrediction, study: StudyConfig) -> str:
        by = f" by more than {prediction.at_least:g}" if prediction.at_least else ""
        return (
            f"{label_of(study, prediction.measure)} of {prediction.of} {WORDS[prediction.direction]} "
            f"that of {prediction.versus}{by}"
        )

    def evidence(self, prediction: DifferencePrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        sign = sign_of(prediction.direction)
        effects = pair_effects(prediction, prediction.measure, data, seeds, lambda of, versus: sign * difference_of(of, versus))
        test = outside(prediction.at_least) if prediction.direction == "either" else beyond(prediction.at_least)
        evidence = tested(effects, test, at_least=prediction.at_least, power_model=self.power_model(prediction))
        evidence = two_sided(evidence) if prediction.direction == "either" else evidence
        return with_items(evidence, prediction, data, seeds, sign) if prediction.items else evidence

    def power_model(self, prediction: DifferencePrediction) -> PowerModel:
        return EffectPower(prediction.at_least, prediction.expect, 2 if prediction.direction == "either" else 1)

    def floor(self, prediction: DifferencePrediction, seeds: int) -> float:
        return p_floor(seeds) * (2 if prediction.direction == "either" else 1)


@kind(RatioPrediction)
class Ratio(PredictionKind[RatioPrediction]):
    """d_s = log(of / versus), turned so that positive is as predicted; sign-flip test of d_s - log(at_least)."""

    def sentence(self, prediction: RatioPrediction, study: StudyConfig) -> str:
        by = f" by a factor of more than {prediction.at_least:g}" if prediction.at_least > 1 else ""
        return (
            f"{label_of(study, prediction.measure)} of {prediction.of} {WORDS[prediction.direction]} "
            f"that of {prediction.versus}{by}"
        )

    def evidence(self, prediction: RatioPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        sign, at_least = sign_of(prediction.direction), math.log(prediction.at_least)
        effects = pair_effects(prediction, prediction.measure, data, seeds, lambda of, versus: sign * log_ratio_of(of, versus))
        test = outside(at_least) if prediction.direction == "either" else beyond(at_least)
        evidence = replace(tested(effects, test, at_least=at_least, power_model=self.power_model(prediction)), scale="log ratio")
        return two_sided(evidence) if prediction.direction == "either" else evidence

    def power_model(self, prediction: RatioPrediction) -> PowerModel:
        expect = None if prediction.expect is None else math.log(prediction.expect)
        return EffectPower(math.log(prediction.at_least), expect, 2 if prediction.direction == "either" else 1)

    def floor(self, prediction: RatioPrediction, seeds: int) -> float:
        return p_floor(seeds) * (2 if prediction.direction == "either" else 1)
