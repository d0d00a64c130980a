"""`invariant`: a measure has a value, up to a tolerance, in every run; chance plays no part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from picolm.study.config import StudyConfig
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, PredictionKind, kind
from picolm.study.predictions.pairs import label_of
from picolm.study.spec_predictions import InvariantPrediction


@kind(InvariantPrediction)
class Invariant(PredictionKind[InvariantPrediction]):
    """effect = tolerance - |value - equals|: at or above zero in every run, or it does not hold. One run is enough."""

    def sentence(self, prediction: InvariantPrediction, study: StudyConfig) -> str:
        minus = f" minus that of {prediction.versus}" if prediction.versus is not None else ""
        within = f", up to {prediction.tolerance:g}" if prediction.tolerance else ""
        return f"{label_of(study, prediction.measure)} of {prediction.of}{minus} is {prediction.equals:g} in every run{within}"

    def evidence(self, prediction: InvariantPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        effects = tuple(self._effect(prediction, data, seed) for seed in seeds)
        if not effects:
            return Evidence((), None, untestable="no seed has ended in every variant")
        holds = all(effect.value >= 0 for effect in effects)
        return Evidence(effects, None, method="exact", scale="exact", exact=holds, interval=False, refuted_word="violated")

    def _effect(self, prediction: InvariantPrediction, data: Measured, seed: int) -> Effect:
        of = data.reduced(prediction.measure, prediction.of, seed)
        versus = None if prediction.versus is None else data.reduced(prediction.measure, prediction.versus, seed).value
        assert of.value is not None
        value = of.value - (versus or 0.0)
        distance = abs(value - prediction.equals) if math.isfinite(value) else math.inf
        return Effect(seed, prediction.tolerance - distance, of.value, versus, of.note)

    def floor(self, prediction: InvariantPrediction, seeds: int) -> None:
        return None
