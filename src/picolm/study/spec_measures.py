"""What a study measures: a series of a run, cut down to the rows meant, and reduced to one number per run or kept as a curve."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from picolm.base.config import OPERATIONAL, Settings
from picolm.base.errors import suggestion

Direction = Literal["lower", "higher"]
Cell = str | int | float | bool | None
"""What a column of a row may be compared with."""

SERIES_SORTS = ("train", "evaluation", "analysis", "run")
RUN_FACTS = (
    *("parameters", "tokens", "steps", "seconds", "tokens_per_second", "flops"),
    *("checkpoint_bytes", "model_state_bytes", "learning_dynamics_bytes", "checkpoint_seconds"),
)
"""What can be measured of a run as a whole, as `run.<fact>`: one number, no curve."""
ANALYSIS_COLUMNS = (
    *("metric", "component", "part", "data_type", "split", "layer", "head", "options", "partner", "estimator"),
    "dtype",
)
EVALUATION_COLUMNS = ("group",)

Reduction = Literal[
    "last", "first", "mean_last", "mean", "median", "min", "max", "at", "auc", "slope", "tokens_to", "jump_at", "curve"
]

REDUCTION_OPTIONS: dict[str, tuple[set[str], set[str]]] = {
    "last": (set(), set()),
    "first": (set(), set()),
    "mean_last": ({"k"}, set()),
    "mean": (set(), {"from_step"}),
    "median": (set(), {"from_step"}),
    "min": (set(), {"from_step"}),
    "max": (set(), {"from_step"}),
    "at": ({"step"}, set()),
    "auc": (set(), {"x", "from_step"}),
    "slope": (set(), {"x", "from_step"}),
    "tokens_to": ({"level"}, {"x", "censor", "smooth"}),
    "jump_at": ({"events"}, {"window"}),
    "curve": (set(), {"x", "from_step", "smooth"}),
}
"""Reduction -> (options that must be given, options that may be given)."""


class EventsConfig(Settings):
    """The steps at which something happened in a run: given, at equal distance, or where a series says so."""

    steps: tuple[NonNegativeInt, ...] = ()
    """Steps (updates made) at which it happened."""
    every: PositiveInt | None = None
    """Updates between two events; the first is after so many updates."""
    series: str | None = None
    """A column of the training log, `train.<column>`: an event is a row where it is not zero."""

    @pydantic.model_validator(mode="after")
    def _one_of_three(self) -> EventsConfig:
        if sum((bool(self.steps), self.every is not None, self.series is not None)) != 1:
            raise ValueError("say exactly one of steps, every, series")
        return self


class MeasureConfig(Settings):
    """`measures.<name>`: a series and how one run's values of it become one number."""

    series: str
    """`train.<column of the log>`, `evaluation.<name>.<score>`, `analysis.<name>` or `run.<fact>`."""
    where: dict[str, Cell | tuple[Cell, ...]] = Field(default_factory=dict)
    """Which rows: column -> value, or list of values. Of analysis rows the mean over what is left; of scores `group` is `all`."""
    reduce: Reduction = "last"
    """How the values of one run become one number; `curve` keeps all of them, for predictions about curves."""
    k: PositiveInt | None = None
    """mean_last: how many of the last values."""
    step: NonNegativeInt | None = None
    """at: the step (updates made) whose value counts; it must have been measured."""
    from_step: NonNegativeInt | None = None
    """Values before this step do not count. Null: all count."""
    x: str = "tokens"
    """What a curve runs over: `tokens`, `log_tokens`, `step`, or a growing column of the log such as `train.method_tokens`."""
    level: float | None = None
    """tokens_to: the value to be reached."""
    censor: Literal["budget"] = "budget"
    """tokens_to: a run that never gets there counts as one that needs more than its budget."""
    smooth: PositiveInt | None = None
    """Values in a running median before the level is looked for, or before a curve is compared. Null: none."""
    events: EventsConfig | None = None
    """jump_at: when it happened. The mean jump is the mean of `window` values after minus the mean of as many before."""
    window: PositiveInt = 5
    """jump_at: values before and after each event."""
    better: Direction = "lower"
    """Which end is good: decides what the worst rank is, what tuning picks, and what `worse` means."""
    label: Annotated[str, OPERATIONAL] = ""
    """What the report calls it, with its unit. Empty: the measure's name."""

    @property
    def sort(self) -> str:
        """train, evaluation, analysis or run."""
        return self.series.partition(".")[0]

    @property
    def is_curve(self) -> bool:
        """Whether it stays a curve, which no prediction about single numbers can use."""
        return self.reduce == "curve"

    @pydantic.field_validator("series")
    @classmethod
    def _known_series(cls, series: str) -> str:
        return check_series(series)

    @pydantic.field_validator("x")
    @classmethod
    def _known_axis(cls, x: str) -> str:
        if x not in ("tokens", "log_tokens", "step") and not x.startswith("train."):
            raise ValueError(f"`{x}` is not an axis: tokens, log_tokens, step, or train.<column>")
        return x

    @pydantic.model_validator(mode="after")
    def _options_fit(self) -> MeasureConfig:
        required, optional = REDUCTION_OPTIONS[self.reduce]
        options = {"k", "step", "from_step", "x", "level", "censor", "smooth", "events", "window"}
        given = {name for name in options if getattr(self, name) != type(self).model_fields[name].default}
        missing = sorted(required - given)
        if missing:
            raise ValueError(f"reduce: {self.reduce} needs `{missing[0]}`")
        unused = sorted(given - required - optional)
        if unused:
            raise ValueError(f"reduce: {self.reduce} does not use `{unused[0]}`")
        if self.sort == "run" and self.reduce != "last":
            raise ValueError(f"{self.series} is one number per run: reduce must be `last`")
        check_columns(self.series, self.where)
        return self


def check_series(series: str) -> str:
    """`series`, if it is of the form of one; ValueError otherwise."""
    sort, _, rest = series.partition(".")
    if sort not in SERIES_SORTS or not rest:
        raise ValueError(f"`{series}` is not a series; {suggestion(sort, SERIES_SORTS)} (such as train.loss)")
    if sort == "evaluation" and rest.count(".") != 1:
        raise ValueError(f"`{series}`: write evaluation.<evaluation>.<score>, such as evaluation.perplexity.loss_per_token")
    if sort == "run" and rest not in RUN_FACTS:
        raise ValueError(f"`{series}` is not known of a run; {suggestion(rest, RUN_FACTS)}")
    return series


def check_columns(series: str, where: dict[str, Any]) -> None:
    """ValueError if `where` names a column that rows of this sort of series do not have."""
    sort = series.partition(".")[0]
    columns = {"analysis": ANALYSIS_COLUMNS, "evaluation": EVALUATION_COLUMNS}.get(sort, ())
    for column in where:
        if column not in columns:
            raise ValueError(f"where: rows of {series} have no column `{column}`; {suggestion(column, columns)}")


Scalar = Annotated[float, Field(allow_inf_nan=False)]
AtLeastZero = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
