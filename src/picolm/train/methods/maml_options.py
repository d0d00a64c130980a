"""What can be chosen about MAML, and the departures of the published code from it, each of which can be switched on alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from picolm.base.errors import PicoError

Place = Literal["last", "mask"]
"""Whose features an example is classified by."""

Departure = Literal[
    "micro_batch_mixing",
    "shared_positions",
    "collapsed_labels",
    "sorted_labels",
    "mask_one_occurrence",
    "vocabulary_head",
    "unscaled_features",
    "unseen_gradients",
    "stale_gradients",
    "repeated_forwards",
]
"""micro_batch_mixing: language model or episodes is decided for each micro-batch, so one update mixes both in a random ratio.
shared_positions: examples are the tokens at a few positions, the same in all sequences; no words, no frequency band.
collapsed_labels: sequences are drawn without regard to words, and a target that is none of the classes becomes class 0.
sorted_labels: classes are numbered by token instead of by a fresh permutation.
mask_one_occurrence: the word is masked at one place and readable at others.
vocabulary_head: a shared classifier of four layers has one output per token for ever, of which those of the classes are read.
unscaled_features: the classifier reads features of norm √D instead of 1.
unseen_gradients: the inner loop changes nothing; its gradients end up in the outer update of the classifier (several devices).
stale_gradients: the last inner gradient stays in that of the outer update, and earlier episodes' are erased (one device).
repeated_forwards: the support features are computed anew in every inner step, to the same values."""

PUBLISHED: frozenset[Departure] = frozenset(get_args(Departure)) - {"stale_gradients"}
"""What the published runs, on several devices, did together."""


# ---- The options, with what each is ----

Variant = Annotated[
    Literal["specified", "published"],
    Field(description="As specified, or with all departures of the published code; null options then take its values."),
]
Departures = Annotated[tuple[Departure, ...], Field(description="Single departures of the published code.")]
Ways = Annotated[PositiveInt, Field(description="Classes of an episode: words, one of which is masked in each example.")]
Support = Annotated[PositiveInt, Field(description="Examples per class to adapt to.")]
Query = Annotated[PositiveInt | None, Field(description="Examples per class to be judged by. Null: 4, published 1.")]
Episodes = Annotated[PositiveInt, Field(description="Episodes per update, over all devices.")]
Mixing = Annotated[
    Literal["alternate", "add"],
    Field(
        description="An update learns from text or, with probability `episode_share`, from episodes; or, with `add`, from both."
    ),
]
EpisodeShare = Annotated[
    NonNegativeFloat, Field(description="Probability that an update learns from episodes, if they alternate.")
]
EpisodeWeight = Annotated[PositiveFloat, Field(description="Factor on the gradient of the episodes.")]
MaskToken = Annotated[
    int,
    Field(
        description="Token put in place of the word, from the end of the vocabulary if negative. It must not occur in the data."
    ),
]
FrequencyBand = Annotated[
    tuple[NonNegativeFloat, PositiveFloat], Field(description="Smallest and largest share of all tokens that a word may have.")
]
FrequencyExponent = Annotated[NonNegativeFloat, Field(description="Words are drawn in proportion to this power of their share.")]
BufferSequences = Annotated[PositiveInt, Field(description="Sequences that episodes are drawn from: those of the last steps.")]
SequenceTokens = Annotated[PositiveInt | None, Field(description="Their length in tokens. Null: whole rows.")]
Readout = Annotated[
    Place | None, Field(description="Token whose features are classified: the last, or the mask. Null: last, published mask.")
]
Head = Annotated[Literal["linear", "mlp"], Field(description="The classifier.")]
HeadWidth = Annotated[PositiveInt, Field(description="Width of the hidden layer of `mlp`.")]
Start = Annotated[
    Literal["zero", "prototypes", "shared"],
    Field(description="The classifier before an episode: zeros, the classes' mean features, or one trained with the model."),
]
InnerSteps = Annotated[NonNegativeInt, Field(description="Steps of the adaptation.")]
InnerLearningRate = Annotated[
    PositiveFloat | None, Field(description="Learning rate of the adaptation. Null: 1.0, or 0.01 if features are unscaled.")
]
Order = Annotated[Literal["first", "exact"], Field(description="Gradient through the adaptation: of first order, or exact.")]


@dataclass(frozen=True)
class Choices:
    """The options that depend on the variant, resolved."""

    departures: frozenset[Departure]
    readout: Place
    query: int
    inner_learning_rate: float


def resolve_choices(
    variant: Literal["specified", "published"],
    departures: Collection[Departure],
    readout: Place | None,
    query: int | None,
    inner_learning_rate: float | None,
) -> Choices:
    """Fill in what was left to the variant; PicoError for a contradiction."""
    published = variant == "published"
    if published and departures:
        raise PicoError(
            "training.method: departures are given beside variant: published, which has all of them",
            "name single departures with variant: specified",
        )
    switched = PUBLISHED if published else frozenset(departures)
    if {"unseen_gradients", "stale_gradients"} <= switched:
        raise PicoError("training.method.departures: unseen_gradients and stale_gradients exclude each other", "choose one")
    slow = "unscaled_features" in switched
    return Choices(
        switched,
        readout or ("mask" if published else "last"),
        query or (1 if published else 4),
        inner_learning_rate or (0.01 if slow else 1.0),
    )
