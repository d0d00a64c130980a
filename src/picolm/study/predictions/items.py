"""Benchmark scores: seeds and items drawn again together, where the runs kept the values of single items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from picolm.records.items import read_items
from picolm.study.judgement import Fact, Interval
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Evidence
from picolm.study.predictions.pairs import with_facts
from picolm.study.spec_predictions import DifferencePrediction
from picolm.study.statistics.bootstrap import two_level_bootstrap
from picolm.study.statistics.paired import Floats

METHOD = "two-level bootstrap over seeds and items"


def with_items(
    evidence: Evidence, prediction: DifferencePrediction, data: Measured, seeds: Sequence[int], sign: float
) -> Evidence:
    """The evidence with the items' uncertainty: an interval, and for a direction the larger p of seeds alone and of both.

    Without kept items a fact says so, and the seeds alone count.
    """
    found = _effects(prediction, data, seeds, sign)
    if isinstance(found, str) or evidence.sides is None:
        why = found if isinstance(found, str) else "nothing is tested"
        return with_facts(evidence, Fact(name="items", value=None, note=f"not resampled: {why}"))
    both = two_level_bootstrap(
        found.effects_SI, clusters_I=found.clusters_I, shift=prediction.at_least, level=1 - data.study.alpha
    )
    interval = Interval(low=both.low, high=both.high, level=1 - data.study.alpha, method=METHOD)
    drawn = "items" if both.items == found.effects_SI.shape[1] else "clusters of items"
    fact = Fact(name="items", value=float(both.items), note=f"p = {both.p:.3g} of seeds and {drawn} together", is_test=True)
    sides = evidence.sides
    if prediction.direction != "either":
        sides = sides._replace(supported=max(sides.supported, both.p))
    method = f"{evidence.method}; and {METHOD}, the larger p counts"
    return with_facts(replace(evidence, sides=sides, method=method, intervals=(*evidence.intervals, interval)), fact)


class _Effects(NamedTuple):
    effects_SI: Floats
    """Oriented paired difference by seed and item; of a ratio of sums, numerator / mean denominator."""
    clusters_I: Sequence[str] | None


def _effects(prediction: DifferencePrediction, data: Measured, seeds: Sequence[int], sign: float) -> _Effects | str:
    """The items' differences, or why there are none."""
    sort, _, name = data.study.measures[prediction.measure].series.partition(".")
    label, _, score = name.partition(".")
    if sort != "evaluation" or data.study.measures[prediction.measure].reduce != "last":
        return "only the last score of an evaluation has items"
    rows: list[list[Floats]] = []
    clusters: set[tuple[str, ...] | None] = set()
    for seed in seeds:
        found = []
        for variant in (prediction.of, prediction.versus):
            run = data.runs[variant, seed].cell.run
            kept = read_items(run, max(run.evaluated_steps(), default=0), label)
            if kept is None or kept.measure != score:
                return f"{run.name} did not keep the items of {label}, or not {score}"
            scale = 1.0 if kept.weights is None else len(kept.weights) / float(np.sum(kept.weights))
            clusters.add(None if kept.clusters is None else tuple(kept.clusters))
            found.append(np.asarray(kept.values, dtype=np.float64) * scale)
        rows.append(found)
    if len({values.size for row in rows for values in row}) != 1:
        return "runs have different numbers of items"
    if len(clusters) > 1:
        return f"runs keep the items of {label} in different clusters, or only some of them in any"
    return _Effects(np.array([sign * (of - versus) for of, versus in rows]), clusters.pop())
