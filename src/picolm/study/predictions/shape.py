"""`shape`: a curve of one variant has an interior peak, a trough, or a number of phases, more than that of another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact, Scale
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, PredictionKind, kind
from picolm.study.predictions.pairs import beyond, label_of, tested, with_facts
from picolm.study.reductions import CurveOfRun
from picolm.study.spec_predictions import ShapePrediction
from picolm.study.statistics.paired import Floats
from picolm.study.statistics.shape import change_point, phases, rise_then_fall

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
        found = [[_look(prediction, curve) for curve in pair if curve is not None] for pair in curves]
        effects = tuple(
            Effect(seed, of.size - versus.size, of.size, versus.size) for seed, (of, versus) in zip(seeds, found, strict=True)
        )
        evidence = tested(effects, beyond(prediction.at_least), at_least=prediction.at_least)
        scale: Scale = "difference" if prediction.phases is None else "share"
        names = (prediction.of, prediction.versus)
        facts = [fact for name, looks in zip(names, zip(*found, strict=True), strict=True) for fact in _facts(name, looks)]
        return with_facts(replace(evidence, scale=scale), *facts)


class _Look(NamedTuple):
    """What one curve has of the shape."""

    size: float
    """Height of the peak beyond noise; for phases 1 if there are as many as predicted, else 0."""
    place: float
    """Where the peak is, or the largest change of level."""
    phases: int | None
    noise: float


def _look(prediction: ShapePrediction, curve: CurveOfRun) -> _Look:
    if prediction.phases is not None:
        count, at = phases(_thinned(curve.y)), change_point(curve.y)
        return _Look(float(count == prediction.phases), math.nan if at is None else float(curve.x[at]), count, 0.0)
    peak = rise_then_fall(curve.y if prediction.shape == "rise_then_fall" else -curve.y)
    return _Look(max(0.0, peak.beyond_noise), float(curve.x[peak.position]), None, peak.noise)


def _thinned(values: Floats) -> Floats:
    if values.size <= MOST_POINTS:
        return values
    return np.asarray(values[np.linspace(0, values.size - 1, MOST_POINTS).round().astype(int)])


def _facts(name: str, looks: Sequence[_Look]) -> list[Fact]:
    place = float(np.median([look.place for look in looks]))
    counts = [str(look.phases) for look in looks if look.phases is not None]
    if counts:
        shown = None if math.isnan(place) else place
        return [
            Fact(name=f"phases, {name}", value=", ".join(counts), note="by seed"),
            Fact(name=f"largest change of level, {name}", value=shown, note="median over seeds"),
        ]
    return [
        Fact(name=f"noise of the peak, {name}", value=float(np.mean([look.noise for look in looks]))),
        Fact(name=f"place of the peak, {name}", value=place, note="median over seeds"),
    ]
