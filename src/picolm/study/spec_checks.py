"""What must hold before a study may speak: checks of the runs, of the manipulation, and of whether the design could disagree."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Discriminator, Field, NonNegativeInt, PositiveFloat, Tag

from picolm.base.config import Settings, kind_of
from picolm.study.spec_measures import AtLeastZero, Cell, Scalar, check_columns, check_series

Operator = Literal[">", ">=", "<", "<=", "==", "!="]


class SeriesOfVariants(Settings):
    """A series of the runs of some variants."""

    series: str
    """`train.<column of the log>`, `evaluation.<name>.<score>`, `analysis.<name>` or `run.<fact>`."""
    where: dict[str, Cell | tuple[Cell, ...]] = Field(default_factory=dict)
    """Which rows: column -> value, or list of values."""
    variants: tuple[str, ...] = ()
    """Variants whose runs are looked at. Empty: all."""

    @pydantic.field_validator("series")
    @classmethod
    def _known_series(cls, series: str) -> str:
        return check_series(series)

    @pydantic.model_validator(mode="after")
    def _known_columns(self) -> SeriesOfVariants:
        check_columns(self.series, self.where)
        return self


class InvariantCheck(SeriesOfVariants):
    """Every value of a series lies within bounds, in every run."""

    kind: Literal["invariant"]
    """invariant"""
    name: str = ""
    """What the report calls the check. Empty: its kind and what it looks at."""
    min: Scalar | None = None
    """Least value allowed. Null: no bound."""
    max: Scalar | None = None
    """Greatest value allowed. Null: no bound."""

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> InvariantCheck:
        if self.min is None and self.max is None:
            raise ValueError("an invariant needs `min` or `max`, or both")
        return self


class ManipulationCheck(SeriesOfVariants):
    """What was changed on purpose did change: a value is beyond a threshold in every run. Without it the study is invalid."""

    kind: Literal["manipulation"]
    """manipulation"""
    name: str = ""
    """What the report calls the check. Empty: its kind and what it looks at."""
    at: NonNegativeInt | Literal["first", "last", "every", "any", "mean"] = "last"
    """Which value counts: that of a step, the first or last logged, every one, any one, or the mean of all."""
    op: Operator
    """How the value is to stand to `value`: > >= < <= == !="""
    value: Scalar
    """The threshold."""


class NoiseFloorCheck(Settings):
    """How much a measure differs between runs of one variant that differ in nothing but the seed; says what can be detected."""

    kind: Literal["noise_floor"]
    """noise_floor"""
    name: str = ""
    """What the report calls the check. Empty: its kind and what it looks at."""
    variant: str
    """Variant whose runs over the tuning seeds (over the confirmation seeds, if there are none) give the noise."""
    measure: str
    """Measure looked at."""
    max: PositiveFloat | None = None
    """Largest standard deviation over seeds with which the study may go on. Null: the noise is only reported."""


class PositiveControlCheck(Settings):
    """A change that is known to matter does matter: else the study could not have seen anything, and is invalid."""

    kind: Literal["positive_control"]
    """positive_control"""
    name: str = "control"
    """Name of the control; its runs are called so. Unique among the controls and variants."""
    variant: str = ""
    """Variant that is changed, and compared with. Empty: the one with the role baseline."""
    set: dict[str, Any]
    """Overrides of the variant's configuration; `x0.05` multiplies the variant's own value."""
    measure: str
    """Measure compared."""
    must: Literal["worse", "better"] = "worse"
    """Where the changed runs must lie, seed by seed, by the measure's `better`."""
    by: AtLeastZero = 0.0
    """Least mean difference, in the measure's unit."""
    seeds: tuple[NonNegativeInt, ...] | None = None
    """Seeds of the control runs. Null: the tuning seeds; without any, the confirmation seeds."""


class HeadroomCheck(Settings):
    """The best variant stays away from the best value possible: at the ceiling no difference could show."""

    kind: Literal["headroom"]
    """headroom"""
    name: str = ""
    """What the report calls the check. Empty: its kind and what it looks at."""
    measure: str
    """Measure looked at, in every variant that is not a control."""
    bound: Scalar | Literal["entropy_floor"]
    """Best value possible: a number, or the entropy of the built-in language in nats per token."""
    min_gap: PositiveFloat
    """Least distance of the best variant's mean from the bound."""


Check = Annotated[
    Annotated[InvariantCheck, Tag("invariant")]
    | Annotated[ManipulationCheck, Tag("manipulation")]
    | Annotated[NoiseFloorCheck, Tag("noise_floor")]
    | Annotated[PositiveControlCheck, Tag("positive_control")]
    | Annotated[HeadroomCheck, Tag("headroom")],
    Discriminator(kind_of),
]
