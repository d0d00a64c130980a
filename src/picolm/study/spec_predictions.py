"""What a study predicts, declared before its data are seen. Differences are always `of` minus `versus`, paired by seed."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from picolm.base.config import OPERATIONAL, Settings, kind_of
from picolm.study.spec_measures import AtLeastZero, Direction, Scalar

AtLeastOne = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Prediction(Settings):
    """What every prediction has."""

    primary: bool = False
    """Whether the verdict on the hypothesis rests on it. Without any primary prediction the first of the family is."""
    note: Annotated[str, OPERATIONAL] = ""
    """Why this is expected, or how to read it; shown in the report."""


class Pair(Prediction):
    """A prediction about two variants that share their seeds."""

    of: str
    """Variant the prediction is about."""
    versus: str
    """Variant it is compared with."""


class DifferencePrediction(Pair):
    """The measure of `of` is lower (higher) than that of `versus` by more than `at_least`. Paired sign-flip test over seeds."""

    kind: Literal["difference"]
    """difference"""
    measure: str
    """Measure compared; one number per run."""
    direction: Direction | Literal["either"]
    """Where `of` is predicted to lie. `either`: only that they differ; the test is two-sided."""
    at_least: AtLeastZero = 0.0
    """Difference to be exceeded, in the measure's unit."""
    expect: PositiveFloat | None = None
    """Difference you expect: from it come power and the seeds still needed. Null: neither is told."""
    items: bool = False
    """Whether the items of the evaluation are resampled too (two-level bootstrap), where their values were kept: whole clusters,
    such as the paradigms of minimal pairs, where it has any."""


class RatioPrediction(Pair):
    """The measure of `of` is a factor lower (higher) than that of `versus`. Tested on the logarithms, paired by seed."""

    kind: Literal["ratio"]
    """ratio"""
    measure: str
    """Measure compared; one positive number per run."""
    direction: Direction | Literal["either"]
    """Where `of` is predicted to lie."""
    at_least: AtLeastOne = 1.0
    """Factor to be exceeded: 1.05 is five percent."""
    expect: Annotated[float, Field(gt=1)] | None = None
    """Factor you expect. Null: no power is told."""


class EquivalencePrediction(Pair):
    """The measures of both differ by less than the margin. Two one-sided tests."""

    kind: Literal["equivalence"]
    """equivalence"""
    measure: str
    """Measure compared; one number per run."""
    margin: PositiveFloat
    """Half the width of what counts as equal: in the measure's unit, or with `scale: ratio` a share, such as 0.04."""
    scale: Literal["difference", "ratio"] = "difference"
    """Whether differences or ratios (on logarithms) are compared with the margin."""


class NonInferiorityPrediction(Pair):
    """`of` is not worse than `versus` by as much as the margin, by the measure's `better`. One-sided test."""

    kind: Literal["non_inferiority"]
    """non_inferiority"""
    measure: str
    """Measure compared; one number per run."""
    margin: PositiveFloat
    """Least loss that would matter: a difference in the measure's unit, or with `scale: ratio` a share."""
    scale: Literal["difference", "ratio"] = "difference"
    """Whether differences or ratios (on logarithms) are compared with the margin."""


class OrderPrediction(Prediction):
    """The measure rises (falls) from each variant to the next in the list. Every step must hold; Page's test is told beside."""

    kind: Literal["order"]
    """order"""
    variants: Annotated[tuple[str, ...], Field(min_length=3)]
    """Variants in the predicted order, three or more."""
    measure: str
    """Measure compared; one number per run."""
    direction: Literal["increasing", "decreasing"]
    """How the measure goes along the list."""


class TrendPrediction(Prediction):
    """The measure has a slope over a dose or size. One slope per seed, then a sign-flip test over seeds."""

    kind: Literal["trend"]
    """trend"""
    over: dict[str, float]
    """Variant -> dose or size, at least three."""
    minus: dict[str, str] = Field(default_factory=dict)
    """Variant -> variant whose value is subtracted first: then the prediction is about how a gap grows."""
    x: Literal["linear", "log"] = "linear"
    """Whether the slope is per unit of the dose, or per factor e."""
    measure: str
    """Measure compared; one number per run."""
    direction: Literal["increasing", "decreasing"]
    """How the measure goes with the dose."""
    at_least: AtLeastZero = 0.0
    """Slope to be exceeded."""
    expect: PositiveFloat | None = None
    """Slope you expect. Null: no power is told."""

    @pydantic.model_validator(mode="after")
    def _enough_doses(self) -> TrendPrediction:
        if len(self.over) < 3 or len(set(self.over.values())) < 2:
            raise ValueError("a trend needs three variants or more, with different doses")
        if self.x == "log" and min(self.over.values()) <= 0:
            raise ValueError("x: log needs doses above zero")
        return self


class TokensToLevelPrediction(Pair):
    """`of` reaches a level with fewer tokens than `versus`, by more than a factor. Paired log ratio; ranks if any is censored."""

    kind: Literal["tokens_to_level"]
    """tokens_to_level"""
    measure: str
    """A measure with `reduce: tokens_to`."""
    direction: Direction = "lower"
    """lower: sooner. higher: later."""
    at_least: AtLeastOne = 1.0
    """Factor to be exceeded."""
    expect: Annotated[float, Field(gt=1)] | None = None
    """Factor you expect. Null: no power is told."""


class EventAlignmentPrediction(Prediction):
    """Dips or peaks of one curve come with those of another, more than chance. Circular shift within runs, over seeds."""

    kind: Literal["event_alignment"]
    """event_alignment"""
    of: str
    """Variant whose runs are looked at."""
    events: str
    """Measure with `reduce: curve` that has the events."""
    events_are: Literal["spikes", "dips"] = "spikes"
    """What an event is in that curve."""
    response: str
    """Measure with `reduce: curve` that is said to respond."""
    response_is: Literal["spikes", "dips"] = "dips"
    """What the response is."""
    lag: tuple[int, int] = (0, 10)
    """Updates from event to response: least and most, both included."""

    @pydantic.model_validator(mode="after")
    def _window(self) -> EventAlignmentPrediction:
        if self.lag[0] > self.lag[1]:
            raise ValueError("lag: the least stands first")
        return self


class ShapePrediction(Pair):
    """A curve of `of` has a shape, more than that of `versus`: an interior peak or trough, or a number of phases."""

    kind: Literal["shape"]
    """shape"""
    measure: str
    """Measure with `reduce: curve`."""
    shape: Literal["rise_then_fall", "fall_then_rise", "phases"]
    """rise_then_fall: an interior peak; fall_then_rise: an interior trough; phases: pieces of different slope."""
    phases: PositiveInt | None = None
    """phases: how many pieces `of` is predicted to have."""
    at_least: AtLeastZero = 0.0
    """Height of the peak (depth of the trough) over that of `versus` to be exceeded, in the measure's unit."""

    @pydantic.model_validator(mode="after")
    def _phases_with_phases(self) -> ShapePrediction:
        if (self.shape == "phases") != (self.phases is not None):
            raise ValueError("`phases` goes with shape: phases, and only with it")
        return self


class WholeCurvePrediction(Pair):
    """The curve of `of` lies below (above) that of `versus` somewhere. Simultaneous band over all points; names the first."""

    kind: Literal["whole_curve"]
    """whole_curve"""
    measure: str
    """Measure with `reduce: curve`."""
    direction: Direction | Literal["either"]
    """Where the curve of `of` is predicted to lie."""
    at_least: AtLeastZero = 0.0
    """Distance to be exceeded, in the measure's unit."""


class InvariantPrediction(Prediction):
    """A measure has a value, up to a tolerance, in every run of a variant; one run is enough. With `versus`: their difference."""

    kind: Literal["invariant"]
    """invariant"""
    of: str
    """Variant the prediction is about."""
    versus: str | None = None
    """Variant whose value is subtracted. Null: none."""
    measure: str
    """Measure looked at; one number per run."""
    equals: Scalar = 0.0
    """The value predicted."""
    tolerance: AtLeastZero = 0.0
    """Largest distance from it that is allowed."""


PredictionConfig = Annotated[
    Annotated[DifferencePrediction, Tag("difference")]
    | Annotated[RatioPrediction, Tag("ratio")]
    | Annotated[EquivalencePrediction, Tag("equivalence")]
    | Annotated[NonInferiorityPrediction, Tag("non_inferiority")]
    | Annotated[OrderPrediction, Tag("order")]
    | Annotated[TrendPrediction, Tag("trend")]
    | Annotated[TokensToLevelPrediction, Tag("tokens_to_level")]
    | Annotated[EventAlignmentPrediction, Tag("event_alignment")]
    | Annotated[ShapePrediction, Tag("shape")]
    | Annotated[WholeCurvePrediction, Tag("whole_curve")]
    | Annotated[InvariantPrediction, Tag("invariant")],
    Discriminator(kind_of),
]

CURVE_KINDS = ("event_alignment", "shape", "whole_curve")
"""Kinds of prediction whose measures must be curves; the others take one number per run."""


def variants_of(prediction: PredictionConfig) -> list[tuple[str, str]]:
    """(key, variant) for every variant a prediction names."""
    match prediction:
        case OrderPrediction():
            return [("variants", name) for name in prediction.variants]
        case TrendPrediction():
            both = [name for pair in prediction.minus.items() for name in pair]
            return [("over", name) for name in prediction.over] + [("minus", name) for name in both]
        case EventAlignmentPrediction():
            return [("of", prediction.of)]
        case InvariantPrediction():
            return [("of", prediction.of)] + ([] if prediction.versus is None else [("versus", prediction.versus)])
        case _:
            return [("of", prediction.of), ("versus", prediction.versus)]


def measures_of(prediction: PredictionConfig) -> list[tuple[str, str]]:
    """(key, measure) for every measure a prediction names."""
    if isinstance(prediction, EventAlignmentPrediction):
        return [("events", prediction.events), ("response", prediction.response)]
    return [("measure", prediction.measure)]
