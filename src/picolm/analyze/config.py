"""The settings of `pico analyze`: which metrics on which components at which steps. The original's files load unchanged.

Two forms may be mixed. In the long one each metric names its own components. In the short one `components` stand once
beside `metrics` and every metric that has none of its own is applied to all of them that it accepts.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from picolm.base.config import AlsoWritten, Settings, parse_settings, parse_yaml, read_yaml
from picolm.base.errors import PicoError, suggestion

Split = Literal["train", "val"]
DataType = Literal["weights", "activations", "gradients", "updates", "first_order"]


class StepRange(Settings):
    """Steps at equal distance."""

    start: pydantic.NonNegativeInt = 0
    """First step."""

    end: pydantic.NonNegativeInt
    """No step after this one; it is included if the distance meets it."""

    step: pydantic.PositiveInt = 1
    """Distance between steps."""

    def steps(self) -> list[int]:
        """The steps, ascending."""
        return list(range(self.start, self.end + 1, self.step))


class Spec(Settings):
    """Something named with its options: the name may be given as `name`, as the original's key, or alone as text."""

    model_config = pydantic.ConfigDict(extra="allow")
    short_forms = (
        {"type": "string"},
        {
            "type": "object",
            "maxProperties": 1,
            "additionalProperties": {"type": ["object", "null"]},
            "not": {"required": ["name"]},
        },
        {"type": "object", "anyOf": [{"required": ["metric_name"]}, {"required": ["component_name"]}]},
    )

    name: str
    """Short name, entry point, `module:object` or `./file.py:object`."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that ride along."""
        return dict(self.model_extra or {})

    @pydantic.model_serializer(mode="wrap")
    def _write_without_nothing(self, handler: Any) -> dict[str, Any]:
        written = {name: getattr(self, name) for name in type(self).model_fields} | self.options
        plain: dict[str, Any] = handler(self) | self.options
        return {name: value for name, value in plain.items() if written.get(name) is not None}


def _named(value: Any, original_key: str) -> Any:
    """`per`, `{per: {...}}` and `{metric_name: per}` as `{name: per}`."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict) or "name" in value:
        return value
    if original_key in value:
        return {("name" if key == original_key else key): item for key, item in value.items()}
    if len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and (options is None or isinstance(options, dict)):
            return {"name": name, **(options or {})}
    return value


class ComponentSpec(Spec):
    """One component: what is cut out of the snapshots."""

    data_type: Annotated[tuple[DataType, ...], AlsoWritten({"enum": list(typing.get_args(DataType))})] = ("weights",)
    """weights, activations, gradients, updates or first_order; or a list of them."""

    data_split: Split | None = None
    """train or val; null: that of the metric."""

    layers: tuple[pydantic.NonNegativeInt, ...] | None = None
    """Layers by number; null: all, and what is outside the layers."""

    heads: tuple[pydantic.NonNegativeInt, ...] | None = None
    """Heads by number; null: all."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: Any) -> Any:
        value = _named(value, "component_name")
        if isinstance(value, dict) and isinstance(value.get("data_type"), str):
            return {**value, "data_type": [value["data_type"]]}
        return value


class Target(Settings):
    """What is compared with: whatever is left out is the same as on this side."""

    step: pydantic.NonNegativeInt | None = None
    """Step; null: the same step."""

    run: str | None = None
    """Run folder; null: the same run."""

    layer: pydantic.NonNegativeInt | None = None
    """Layer; null: the same layer."""


CompareWith = Literal["first", "last", "previous", "all", "beside"] | Target


class MetricSpec(Spec):
    """One metric, with what it is applied to."""

    components: tuple[ComponentSpec, ...] | None = None
    """What it is applied to; null: the `components` of the file that it accepts."""

    data_split: Split | None = None
    """train or val, for everything but weights; null: that of the file."""

    target_checkpoint: pydantic.NonNegativeInt | None = None
    """The step compared with, for metrics that compare: the original's short form of `compare_with: {step: n}`."""

    compare_with: CompareWith | None = None
    """`first` or `last` chosen step, the `previous` one, `all` of them, what stands `beside` (the weight under an update), or
    `{step, run, layer}`; null: that of the file, else what suits the metric."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: Any) -> Any:
        return _named(value, "metric_name")

    @pydantic.model_validator(mode="after")
    def _one_target(self) -> MetricSpec:
        if self.target_checkpoint is not None and self.compare_with is not None:
            raise ValueError("give target_checkpoint or compare_with, not both")
        return self

    @property
    def target(self) -> CompareWith | None:
        """What it is compared with, in whichever form it was given."""
        return self.compare_with if self.target_checkpoint is None else Target(step=self.target_checkpoint)


class WandbConfig(Settings):
    """Where Weights & Biases keeps the values."""

    entity: str = ""
    """Team or user name."""

    project: str = ""
    """Project name."""


class AnalysisMonitoringConfig(Settings):
    """Where values go besides the run folder."""

    output_dir: str | None = None
    """Folder that also receives the values as JSON, one file per step and metric; null: none."""

    save_to_wandb: bool = False
    """Whether values are also logged to Weights & Biases."""

    wandb: WandbConfig = WandbConfig()


class AnalysisConfig(Settings):
    """An analysis: metrics on components at steps."""

    analysis_name: str
    """Name of the folder below `analysis/` of the run that receives the rows."""

    steps: Annotated[tuple[pydantic.NonNegativeInt, ...] | StepRange | None, AlsoWritten({"const": "all"})] = None
    """Steps as a list or as `{start, end, step}`; null or `all`: every step that has a checkpoint."""

    metrics: tuple[MetricSpec, ...]
    """Metrics: `per`, `{name: norm, norm_type: nuclear}`, or the original's `metric_name` with its components."""

    components: tuple[ComponentSpec, ...] = ()
    """Components for metrics that name none of their own."""

    data_split: Split = "val"
    """Batch whose activations, gradients and updates are measured: train or val."""

    compare_with: CompareWith | None = None
    """What comparing metrics compare with where they do not say; null: what suits the metric."""

    monitoring: AnalysisMonitoringConfig = AnalysisMonitoringConfig()

    @pydantic.field_validator("steps", mode="before")
    @classmethod
    def _accept_all(cls, value: Any) -> Any:
        return None if value == "all" else value

    @pydantic.field_validator("metrics")
    @classmethod
    def _at_least_one(cls, value: tuple[MetricSpec, ...]) -> tuple[MetricSpec, ...]:
        if not value:
            raise ValueError("at least one metric must be named")
        return value

    def wanted_steps(self) -> list[int] | None:
        """The steps named, ascending; None for every step there is."""
        if self.steps is None:
            return None
        return self.steps.steps() if isinstance(self.steps, StepRange) else sorted(set(self.steps))

    def chooses(self, step: int) -> bool:
        """Whether a step is one of those wanted."""
        wanted = self.wanted_steps()
        return wanted is None or step in wanted

    def chosen_steps(self, existing: Iterable[int]) -> list[int]:
        """The steps to analyse, ascending; PicoError if one of them does not exist."""
        available = sorted(existing)
        if not available:
            raise PicoError("the run has no checkpoints", "`pico train` writes them")
        wanted = self.wanted_steps()
        if wanted is None:
            return available
        for step in wanted:
            check_step(step, available, "steps")
        return wanted


def check_step(step: int, available: list[int], setting: str) -> None:
    """PicoError unless the step has a checkpoint."""
    if step not in available:
        shown = ", ".join(str(each) for each in available[:20]) + (", ..." if len(available) > 20 else "")
        raise PicoError(f"{setting}: step {step} has no checkpoint", f"there are {shown}")


def preset_names() -> list[str]:
    """Names of the analyses that come with the package."""
    folder = resources.files("picolm.analyze") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_analysis(path: str | Path) -> AnalysisConfig:
    """The analysis in a YAML file, or one that comes with the package, by name, such as `table5`."""
    if Path(path).exists():
        return parse_settings(AnalysisConfig, read_yaml(Path(path)), str(path))
    name = str(path)
    if name in preset_names():
        text = (resources.files("picolm.analyze") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
        return parse_settings(AnalysisConfig, parse_yaml(text, name), name)
    raise PicoError(f"there is no analysis file {name}", suggestion(name, preset_names()) + "; or give the path of a YAML file")
