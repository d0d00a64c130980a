"""What can be chosen about MAML, and the departures of the published code from it, each of which can be switched on alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from picolm.base.errors import PicoError

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


@dataclass(frozen=True)
class Choices:
    """The options that depend on the variant, resolved."""

    departures: frozenset[Departure]
    readout: Literal["last", "mask"]
    query: int
    inner_learning_rate: float


def resolve_choices(
    variant: Literal["specified", "published"],
    departures: Collection[Departure],
    readout: Literal["last", "mask"] | None,
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
