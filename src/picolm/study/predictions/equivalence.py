"""`equivalence` and `non_inferiority`: two variants differ by less than a margin, or one is not worse by as much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact, Scale
from picolm.study.measures import Measured
from picolm.study.predictions.contract import EffectPower, Evidence, MarginPower, PowerModel, PredictionKind, kind
from picolm.study.predictions.pairs import (
    beyond,
    difference_of,
    label_of,
    log_ratio_of,
    pair_effects,
    sign_of,
    tested,
    with_facts,
    within,
)
from picolm.study.spec_predictions import EquivalencePrediction, NonInferiorityPrediction
from picolm.study.statistics.paired import equivalence

_Config = EquivalencePrediction | NonInferiorityPrediction


def _margin_of(prediction: _Config) -> float:
    """On the effect's scale: a share m becomes log(1 + m), symmetric for either variant being the larger."""
    return math.log1p(prediction.margin) if prediction.scale == "ratio" else prediction.margin


def _shown_margin(prediction: _Config) -> str:
    return f"{100 * prediction.margin:g}%" if prediction.scale == "ratio" else f"{prediction.margin:g}"


@kind(EquivalencePrediction)
class Equivalence(PredictionKind[EquivalencePrediction]):
    """Two one-sided sign-flip tests, against -margin and +margin; refuted if the effect lies outside on either side."""

    def sentence(self, prediction: EquivalencePrediction, study: StudyConfig) -> str:
        measure = label_of(study, prediction.measure)
        return f"{measure} of {prediction.of} and that of {prediction.versus} differ by less than {_shown_margin(prediction)}"

    def evidence(self, prediction: EquivalencePrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        margin = _margin_of(prediction)
        compare = log_ratio_of if prediction.scale == "ratio" else difference_of
        effects = pair_effects(prediction, prediction.measure, data, seeds, compare)
        evidence = tested(effects, within(margin), at_least=-margin, power_model=self.power_model(prediction))
        evidence = replace(evidence, margin=margin, refuted_word="outside the margin", scale=_scale(prediction))
        finite = [effect.value for effect in effects if math.isfinite(effect.value)]
        if len(finite) < max(2, len(effects)):
            return evidence
        return with_facts(evidence, Fact(name="p of two one-sided t tests", value=equivalence(finite, margin).p_t, is_test=True))

    def power_model(self, prediction: EquivalencePrediction) -> PowerModel:
        return MarginPower(_margin_of(prediction))


@kind(NonInferiorityPrediction)
class NonInferiority(PredictionKind[NonInferiorityPrediction]):
    """d_s turned so that positive is better; sign-flip test of d_s + margin."""

    def sentence(self, prediction: NonInferiorityPrediction, study: StudyConfig) -> str:
        measure = label_of(study, prediction.measure)
        return (
            f"{measure} of {prediction.of} is not worse than that of {prediction.versus} by {_shown_margin(prediction)} or more"
        )

    def evidence(self, prediction: NonInferiorityPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        margin, sign = _margin_of(prediction), sign_of(data.study.measures[prediction.measure].better)
        compare = log_ratio_of if prediction.scale == "ratio" else difference_of
        effects = pair_effects(prediction, prediction.measure, data, seeds, lambda of, versus: sign * compare(of, versus))
        evidence = tested(effects, beyond(-margin), at_least=-margin, power_model=self.power_model(prediction))
        return replace(evidence, margin=margin, refuted_word="worse by more than the margin", scale=_scale(prediction))

    def power_model(self, prediction: NonInferiorityPrediction) -> PowerModel:
        return EffectPower(-_margin_of(prediction), 0.0, goal="show that two equal variants are not worse")


def _scale(prediction: _Config) -> Scale:
    return "log ratio" if prediction.scale == "ratio" else "difference"
