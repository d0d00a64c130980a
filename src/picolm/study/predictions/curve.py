"""`whole_curve`: one curve lies below or above another somewhere, all points looked at together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import CurveBand
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, Positions, PredictionKind, Sides, kind, sign_flip_method
from picolm.study.predictions.difference import WORDS
from picolm.study.predictions.pairs import label_of, sign_of
from picolm.study.reductions import CurveOfRun
from picolm.study.spec_predictions import WholeCurvePrediction
from picolm.study.statistics.curves import Band, first_separation, max_t_p, simultaneous_band
from picolm.study.statistics.paired import Floats, p_floor, sign_flip_p

MOST_POINTS = 200
"""Curves are compared at no more points than this, evenly chosen."""


@kind(WholeCurvePrediction)
class WholeCurve(PredictionKind[WholeCurvePrediction]):
    """d_s(t) on common points; exact max-t sign-flip over all points. Refuted: at every point the effect is below at_least."""

    def sentence(self, prediction: WholeCurvePrediction, study: StudyConfig) -> str:
        measure = label_of(study, prediction.measure)
        by = f" by more than {prediction.at_least:g}" if prediction.at_least else ""
        return (
            f"the curve of {measure} of {prediction.of} {WORDS[prediction.direction]} that of {prediction.versus}{by} somewhere"
        )

    def evidence(self, prediction: WholeCurvePrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        found = [
            data.reduced(prediction.measure, variant, seed).curve
            for variant in (prediction.of, prediction.versus)
            for seed in seeds
        ]
        curves = [curve for curve in found if curve is not None]
        if len(seeds) < 2 or len(curves) < len(found):
            reason = "a run diverged, and a curve has no worst rank" if len(seeds) > 1 else "fewer than two seeds have ended"
            return Evidence((), None, untestable=reason)
        x = common_points(curves)
        if x.size < 2:
            return Evidence((), None, untestable="the curves have fewer than two points in common")
        drawn_ST = np.array([np.interp(x, curve.x, curve.y) for curve in curves])
        effects_ST = sign_of(prediction.direction) * (drawn_ST[: len(seeds)] - drawn_ST[len(seeds) :])
        band = simultaneous_band(effects_ST, shift=prediction.at_least, level=1 - data.study.alpha)
        test = _CurveTest(effects_ST, prediction.at_least, prediction.direction == "either")
        floor = p_floor(len(seeds)) * (2 if prediction.direction == "either" else 1)
        return Evidence(
            effects=tuple(Effect(seed, float(row.mean())) for seed, row in zip(seeds, effects_ST, strict=True)),
            sides=test(np.arange(len(seeds))),
            test=test,
            sides_counted=2 if prediction.direction == "either" else 1,
            method=f"largest t over {x.size} points, {sign_flip_method(len(seeds), False)}",
            floor=floor,
            scale="distance",
            at_least=prediction.at_least,
            curve=_band(data.study, prediction, x, band),
            refuted_word="nowhere beyond the threshold",
        )

    def floor(self, prediction: WholeCurvePrediction, seeds: int) -> float:
        return p_floor(seeds) * (2 if prediction.direction == "either" else 1)


def common_points(curves: Sequence[CurveOfRun]) -> Floats:
    """The points of the first curve that lie within all of them, thinned evenly."""
    low, high = max(float(curve.x[0]) for curve in curves), min(float(curve.x[-1]) for curve in curves)
    x = curves[0].x[(curves[0].x >= low) & (curves[0].x <= high)]
    return x if x.size <= MOST_POINTS else x[np.linspace(0, x.size - 1, MOST_POINTS).round().astype(int)]


def _band(study: StudyConfig, prediction: WholeCurvePrediction, x: Floats, band: Band) -> CurveBand:
    first = first_separation(band.p_T, study.alpha)
    finite = [[float(value) if np.isfinite(value) else None for value in side] for side in (band.low_T, band.high_T)]
    return CurveBand(
        x_name=study.measures[prediction.measure].x,
        x=tuple(x.tolist()),
        mean=tuple(band.mean_T.tolist()),
        low=tuple(finite[0]),
        high=tuple(finite[1]),
        p=tuple(band.p_T.tolist()),
        level=1 - study.alpha,
        threshold=prediction.at_least,
        first_separation=None if first is None else float(x[first]),
    )


class _CurveTest:
    """Somewhere beyond the threshold, against nowhere."""

    def __init__(self, effects_ST: Floats, at_least: float, either: bool) -> None:
        self._effects_ST, self._at_least, self._either = effects_ST, at_least, either

    def __call__(self, kept: Positions) -> Sides:
        effects = self._effects_ST[kept]
        if len(effects) < 2:
            return Sides(1.0, 1.0)
        signs = (1.0, -1.0) if self._either else (1.0,)
        somewhere = [max_t_p(sign * effects, self._at_least) for sign in signs]
        nowhere = [float(sign_flip_p(-sign * effects.T, shift=-self._at_least).max()) for sign in signs]
        return Sides(min(1.0, len(signs) * min(somewhere)), max(nowhere))
