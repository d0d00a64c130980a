"""What a kind of prediction looks like: how it is said, what each seed tells about it, and how that is tested.

The judge asks these questions and never which kind it is talking to. A new kind is one settings model in `spec_predictions` and
one file here.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from picolm.study.config import StudyConfig
from picolm.study.judgement import CurveBand, Fact, Interval, Scale
from picolm.study.measures import Measured
from picolm.study.spec_predictions import Prediction
from picolm.study.statistics import power
from picolm.study.statistics.censored import signed_ranks
from picolm.study.statistics.paired import Floats, p_floor

P = TypeVar("P", bound=Prediction)
Positions = NDArray[np.intp]


class Effect(NamedTuple):
    """What one seed says: oriented, positive as predicted; infinite where one run diverged."""

    seed: int
    value: float
    of: float | None = None
    versus: float | None = None
    note: str = ""


class Sides(NamedTuple):
    """One-sided p values of both statements and of what tells one refutation from another."""

    supported: float
    refuted: float | None
    reversed: float | None = None
    """Of "the effect is at least zero": small means it goes the other way."""
    negligible: float | None = None
    """Of "the effect is at or below minus the threshold": small, in a refutation, means it lies within the threshold of zero."""


SidesTest = Callable[[Positions], Sides]
"""From the positions of the seeds that are kept to p values: asked once with all, and again without each."""


class PowerModel(Protocol):
    """How likely a prediction is to be found true, if what its author expects is so."""

    @property
    def expect(self) -> float | None:
        """What is expected, on the effect's scale."""

    @property
    def goal(self) -> str:
        """What enough seeds do, in words."""

    def power(self, deviation: float, seeds: int, alpha: float) -> float | None:
        """Power for what is expected; None if nothing is. `deviation`: standard deviation of the paired differences."""

    def smallest(self, deviation: float, seeds: int, alpha: float) -> float:
        """Smallest true effect (or margin) found with 80% power."""

    def needed(self, deviation: float, alpha: float) -> int | None:
        """Seeds for 80% power for what is expected; None if nothing is, or it takes more than 1,000."""


@dataclass(frozen=True)
class EffectPower:
    """Power to find an effect beyond a threshold."""

    at_least: float
    expect: float | None
    sides: int = 1
    goal: str = "find the declared effect"

    def power(self, deviation: float, seeds: int, alpha: float) -> float | None:
        if self.expect is None:
            return None
        return power.power_of(_ratio(self.expect - self.at_least, deviation), seeds, alpha / self.sides)

    def smallest(self, deviation: float, seeds: int, alpha: float) -> float:
        return self.at_least + deviation * power.minimum_detectable(seeds, alpha / self.sides)

    def needed(self, deviation: float, alpha: float) -> int | None:
        if self.expect is None:
            return None
        return power.seeds_needed(_ratio(self.expect - self.at_least, deviation), alpha / self.sides)


@dataclass(frozen=True)
class MarginPower:
    """Power to find two equal variants equivalent."""

    margin: float
    expect: float | None = 0.0
    goal: str = "show that two equal variants are equivalent"

    def power(self, deviation: float, seeds: int, alpha: float) -> float | None:
        return power.power_of_equivalence(_ratio(self.margin, deviation), seeds, alpha)

    def smallest(self, deviation: float, seeds: int, alpha: float) -> float:
        return deviation * power.minimum_margin(seeds, alpha)

    def needed(self, deviation: float, alpha: float) -> int | None:
        return power.seeds_needed_for_equivalence(_ratio(self.margin, deviation), alpha)


def _ratio(distance: float, deviation: float) -> float:
    """Distance in standard deviations, kept within what the noncentral t can do."""
    if deviation <= 0:
        return 50.0 if distance > 0 else -50.0
    return max(-50.0, min(50.0, distance / deviation))


@dataclass(frozen=True)
class Evidence:
    """What the given seeds say about one prediction."""

    effects: tuple[Effect, ...]
    sides: Sides | None
    """None where nothing can be tested; `untestable` says why, unless the kind is exact."""
    test: SidesTest | None = None
    """The test behind `sides`, to be repeated without one seed. None where that makes no sense."""
    sides_counted: int = 1
    """2 where the smallest p is twice the floor, because either sign counts."""
    method: str = ""
    floor: float | None = None
    scale: Scale = "difference"
    at_least: float = 0.0
    margin: float | None = None
    power_model: PowerModel | None = None
    exact: bool | None = None
    """For kinds without chance: whether the prediction holds."""
    untestable: str = ""
    intervals: tuple[Interval, ...] = ()
    """Others than the t interval of the mean."""
    curve: CurveBand | None = None
    facts: tuple[Fact, ...] = ()
    refuted_word: str = ""
    """What a refutation is called, where the usual words (reversed, negligible, too small) do not fit."""
    interval: bool = True
    """Whether a t interval for the mean effect means anything: not where a level was never reached."""

    @property
    def values(self) -> Floats:
        return np.array([effect.value for effect in self.effects], dtype=np.float64)


class PredictionKind(abc.ABC, Generic[P]):
    """One kind of prediction."""

    @abc.abstractmethod
    def sentence(self, prediction: P, study: StudyConfig) -> str:
        """The prediction in words, without a full stop."""

    @abc.abstractmethod
    def evidence(self, prediction: P, data: Measured, seeds: Sequence[int]) -> Evidence:
        """What these seeds say, all of whose runs have ended."""

    def power_model(self, prediction: P) -> PowerModel | None:
        """How its power is computed; None where there is no formula."""
        return None

    def floor(self, prediction: P, seeds: int) -> float | None:
        """The smallest p that so many seeds can give; None where chance plays no part."""
        return p_floor(seeds)


KINDS: dict[type[Prediction], PredictionKind[Any]] = {}


def kind(config: type[Prediction]) -> Callable[[type[PredictionKind[Any]]], type[PredictionKind[Any]]]:
    """Decorator that makes a class answer for predictions with these settings."""

    def add(cls: type[PredictionKind[Any]]) -> type[PredictionKind[Any]]:
        KINDS[config] = cls()
        return cls

    return add


def kind_of(prediction: Prediction) -> PredictionKind[Any]:
    """Who answers for a prediction."""
    import picolm.study.predictions  # noqa: F401 - registers the kinds

    return KINDS[type(prediction)]


def scores(effects: Floats, shift: float) -> Floats:
    """`effects` - `shift` for a sign-flip test; as signed ranks if a diverged run makes one infinite."""
    shifted = np.nan_to_num(effects - shift, nan=0.0, posinf=math.inf, neginf=-math.inf)
    return shifted if np.isfinite(shifted).all() else signed_ranks(shifted)


def sign_flip_method(seeds: int, ranked: bool) -> str:
    """The test in words."""
    how = f"exact, {2**seeds} sign vectors" if seeds <= 16 else "100,000 drawn sign vectors"
    return f"sign-flip over seeds ({how}{', on signed ranks' if ranked else ''})"
