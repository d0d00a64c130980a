"""What can be chosen about ReLoRA, the steps that follow from it, and the departures of the published code from the method."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from picolm.base.errors import PicoError
from picolm.optim.contract import Schedule

Departure = Literal[
    "dead_start",
    "unscaled_merge",
    "undone_reset",
    "no_warm_start",
    "random_pruning",
    "same_learning_rate",
]
"""dead_start: A begins at zero like B, so neither has a gradient and no target moves before the first reset.
unscaled_merge: a reset adds B A to the weights instead of (alpha / rank) B A.
undone_reset: one update after a reset A and B are what they were before it, plus that update; what was merged stays merged.
no_warm_start: low rank from the first step, whatever `warm_start_share` says.
random_pruning: a reset keeps a random 0.1 % of each of the optimiser's moments by itself, instead of those that `pruning` says.
same_learning_rate: `learning_rate_multiplier` has no effect."""

PUBLISHED: frozenset[Departure] = frozenset(get_args(Departure))
"""What the published code did together, on several devices (arXiv 2509.12960 with its repository)."""


def resolve_departures(variant: Literal["specified", "published"], departures: Collection[Departure]) -> frozenset[Departure]:
    """The departures that are switched on; PicoError if some are named beside a variant that has them all."""
    if variant == "specified":
        return frozenset(departures)
    if departures:
        raise PicoError(
            "training.method: departures are given beside variant: published, which has all of them",
            "name single departures with variant: specified",
        )
    return PUBLISHED


@dataclass(frozen=True)
class Cycles:
    """When the low-rank phase begins, when its factors are reset, and how the learning rate follows."""

    warm_start_steps: int
    period: int
    ramp_steps: int
    multiplier: float

    def is_low_rank(self, step: int) -> bool:
        """Whether the update after `step` updates is one of low rank."""
        return step >= self.warm_start_steps

    def reset_number(self, made: int) -> int | None:
        """Which reset follows the update that made `made` updates, counted from 1; None if none does.

        It is the update after a whole number of periods: the one whose learning rate the jagged schedule has taken to zero.
        """
        number, rest = divmod(made - 1 - self.warm_start_steps, self.period)
        return number if rest == 0 and number > 0 else None

    def factor(self, step: int) -> float:
        """What the learning rate of the update after `step` updates is multiplied with."""
        since = step - self.warm_start_steps
        if since < 0:
            return 1.0
        begins_with_own_warm_up = since < self.period and self.warm_start_steps == 0
        position = since % self.period
        if begins_with_own_warm_up or position >= self.ramp_steps:
            return self.multiplier
        return self.multiplier * position / self.ramp_steps

    def jagged(self, schedule: Schedule) -> Schedule:
        """The schedule, from zero back to its own value over `ramp_steps` at the begin of every cycle."""
        return lambda step: schedule(step) * self.factor(step)
