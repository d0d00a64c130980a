"""`shape`: a curve of one variant has an interior peak, a trough, or a number of phases, more than that of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact, Scale
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, PredictionKind, kind
from picolm.study.predictions.pairs import beyond, label_of, tested, with_facts
from picolm.study.reductions import CurveOfRun
from picolm.study.spec_predictions import ShapePrediction
from picolm.study.statistics.paired import Floats
from picolm.study.statistics.shape import Peak, change_point, phases, rise_then_fall

MOST_POINTS = 120
"""A longer curve is thinned evenly before its phases are counted."""


@kind(ShapePrediction)
class Shape(PredictionKind[ShapePrediction]):
    """Per seed: height of the peak beyond what noise gives, `of` minus `versus`; sign-flip test of that minus at_least.

    For phases: 1 if only `of` has the predicted number, -1 if only `versus` has, else 0.
    """

    def sentence(self, prediction: ShapePrediction, study: StudyConfig) -> str:
        measure = label_of(study, prediction.measure)
        if prediction.phases is not None:
            return f"{measure} of {prediction.of} has {prediction.phases} phases, more often than that of {prediction.versus}"
        words = "rises, then falls," if prediction.shape == "rise_then_fall" else "falls, then rises,"
        by = f", by more than {prediction.at_least:g}" if prediction.at_least else ""
        return f"{measure} of {prediction.of} {words} more than that of {prediction.versus}{by}"

    def evidence(self, prediction: ShapePrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        curves = [
            [data.reduced(prediction.measure, variant, seed).curve for variant in (prediction.of, prediction.versus)]
            for seed in seeds
        ]
        if not curves or any(curve is None for pair in curves for curve in pair):
            reason = "a run diverged, and half a curve has no shape" if curves else "no seed has ended in every variant"
            return Evidence((), None, untestable=reason)
        pairs = [(of, versus) for of, versus in curves if of is not None and versus is not None]
        sizes = [tuple(_size(prediction, curve) for curve in pair) for pair in pairs]
        effects = tuple(Effect(seed, of - versus, of, versus) for seed, (of, versus) in zip(seeds, sizes, strict=True))
        evidence = tested(effects, beyond(prediction.at_least), at_least=prediction.at_least)
        scale: Scale = "difference" if prediction.phases is None else "share"
        return with_facts(replace(evidence, scale=scale), *_facts(prediction, pairs))


def _size(prediction: ShapePrediction, curve: CurveOfRun) -> float:
    if prediction.phases is not None:
        return float(phases(_thinned(curve.y)) == prediction.phases)
    return max(0.0, _peak(prediction, curve).beyond_noise)


def _peak(prediction: ShapePrediction, curve: CurveOfRun) -> Peak:
    return rise_then_fall(curve.y if prediction.shape == "rise_then_fall" else -curve.y)


def _thinned(values: Floats) -> Floats:
    if values.size <= MOST_POINTS:
        return values
    return np.asarray(values[np.linspace(0, values.size - 1, MOST_POINTS).round().astype(int)])


def _facts(prediction: ShapePrediction, pairs: list[tuple[CurveOfRun, CurveOfRun]]) -> list[Fact]:
    facts = []
    for name, curves in zip((prediction.of, prediction.versus), zip(*pairs, strict=True), strict=True):
        if prediction.phases is not None:
            counts = [phases(_thinned(curve.y)) for curve in curves]
            facts.append(Fact(name=f"phases, {name}", value=", ".join(map(str, counts)), note="by seed"))
            places = [curve.x[at] for curve in curves if (at := change_point(curve.y)) is not None]
            facts.append(Fact(name=f"largest change of level, {name}", value=float(np.median(places)), note="median over seeds"))
            continue
        peaks = [_peak(prediction, curve) for curve in curves]
        facts.append(Fact(name=f"noise of the peak, {name}", value=float(np.mean([peak.noise for peak in peaks]))))
        places = [float(curve.x[peak.position]) for curve, peak in zip(curves, peaks, strict=True)]
        facts.append(Fact(name=f"place of the peak, {name}", value=float(np.median(places)), note="median over seeds"))
    return facts
