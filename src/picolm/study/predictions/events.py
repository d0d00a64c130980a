"""`event_alignment`: dips or spikes of one curve keep step with those of another, more than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Fact
from picolm.study.measures import Measured
from picolm.study.predictions.contract import Effect, Evidence, Positions, PredictionKind, Sides, kind, scores
from picolm.study.predictions.pairs import label_of
from picolm.study.spec_predictions import EventAlignmentPrediction
from picolm.study.statistics.events import Alignment, event_alignment, local_extremes, without_trend
from picolm.study.statistics.paired import sign_flip_p, stouffer

DEVIATIONS = 4.0
"""An event stands out from the points before it by so many scaled median absolute deviations."""


@kind(EventAlignmentPrediction)
class EventAlignment(PredictionKind[EventAlignmentPrediction]):
    """Per run: response near events minus response elsewhere, its running median taken out; p by all circular shifts.

    The p values of the seeds are combined by Stouffer's formula, so `supported` is about these runs. Refuted: over seeds the
    response goes the other way (sign-flip).
    """

    def sentence(self, prediction: EventAlignmentPrediction, study: StudyConfig) -> str:
        events, response = label_of(study, prediction.events), label_of(study, prediction.response)
        least, most = prediction.lag
        return (
            f"in {prediction.of}, {prediction.response_is} of {response} come {least} to {most} updates after "
            f"{prediction.events_are} of {events}, more than chance"
        )

    def evidence(self, prediction: EventAlignmentPrediction, data: Measured, seeds: Sequence[int]) -> Evidence:
        found = [self._alignment(prediction, data, seed) for seed in seeds]
        if not found or None in found:
            reason = "a run diverged, and half a curve has no events to align" if found else "no seed has ended in every variant"
            return Evidence((), None, untestable=reason)
        alignments = [each for each in found if each is not None]
        effects = tuple(
            Effect(seed, each.effect, note=f"p = {each.p:.3g}" if each.points else "no event was found")
            for seed, each in zip(seeds, alignments, strict=True)
        )
        test = _CombinedTest(alignments)
        return Evidence(
            effects=effects,
            sides=test(np.arange(len(seeds))),
            test=test,
            method="all circular shifts within each run, combined by Stouffer's formula",
            refuted_word="reversed",
            facts=(
                Fact(name="points near an event", value=float(sum(each.points for each in alignments)), note="over all runs"),
            ),
        )

    def _alignment(self, prediction: EventAlignmentPrediction, data: Measured, seed: int) -> Alignment | None:
        source = data.reduced(prediction.events, prediction.of, seed).curve
        response = data.reduced(prediction.response, prediction.of, seed).curve
        if source is None or response is None:
            return None
        height = source.y if prediction.events_are == "spikes" else -source.y
        least, most = prediction.lag
        near = np.zeros(response.steps.size, dtype=bool)
        for point in local_extremes(height, deviations=DEVIATIONS):
            since = response.steps - source.steps[point]
            near |= (since >= least) & (since <= most)
        oriented = response.y if prediction.response_is == "spikes" else -response.y
        return event_alignment(without_trend(oriented), near)

    def floor(self, prediction: EventAlignmentPrediction, seeds: int) -> None:
        return None


class _CombinedTest:
    """Stouffer over seeds for; sign-flip over seeds against."""

    def __init__(self, alignments: list[Alignment]) -> None:
        self._p = np.array([each.p for each in alignments])
        self._effects = np.array([each.effect for each in alignments])

    def __call__(self, kept: Positions) -> Sides:
        return Sides(stouffer(self._p[kept].tolist()), float(sign_flip_p(-scores(self._effects[kept], 0.0))))
