"""From settings to a list of measurements: names found, options checked, combinations that a metric does not take set aside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pydantic

from picolm.analyze.components.contract import COMPONENTS, Component, find_component
from picolm.analyze.config import AnalysisConfig, CompareWith, ComponentSpec, MetricSpec, Target
from picolm.analyze.metrics.contract import Metric, check_data_type, find_metric
from picolm.base.errors import PicoError, nearest
from picolm.base.registry import options_model


@dataclass(frozen=True)
class View:
    """One component of one split: what is cut out of each snapshot once and shared by all metrics."""

    component: Component
    split: str

    @cached_property
    def key(self) -> str:
        """Equal for equal views."""
        return canonical_json([self.component.name, self.component.data_type, self.component.options, self.split])


@dataclass(frozen=True)
class Partner:
    """What a matrix is compared with: `beside` it, the same at the `previous` chosen step, or a `fixed` place."""

    kind: Literal["beside", "previous", "fixed"]
    step: int | None = None
    """None: the same step."""
    run: str | None = None
    layer: int | None = None
    moves: bool = False
    """Whether it is the last chosen step, which is another one once the run has gone on."""

    def __str__(self) -> str:
        if self.kind != "fixed":
            return "beside" if self.kind == "beside" else "step=previous"
        run = None if self.run is None else Path(self.run).resolve().name
        named = {"run": run, "step": self.step, "layer": self.layer}
        return ",".join(f"{name}={value}" for name, value in named.items() if value is not None)


@dataclass(frozen=True)
class Measurement:
    """One metric on one view."""

    metric: Metric
    view: View
    layers: tuple[int, ...] | None
    heads: tuple[int, ...] | None
    partner: Partner | None
    """None for metrics of one matrix."""

    def wants(self, layer: int | None, head: int | None) -> bool:
        """Whether a piece of this layer and head is measured."""
        return (self.layers is None or layer in self.layers) and (self.heads is None or head in self.heads)

    @cached_property
    def options(self) -> str:
        """The options that differ from their defaults, as canonical JSON."""
        return canonical_json(self.metric.named_options | self.view.component.named_options)


@dataclass(frozen=True)
class Plan:
    """All measurements of an analysis, by view."""

    by_view: dict[str, list[Measurement]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    """One sentence per metric of the short form that does not take some of the components."""

    @property
    def measurements(self) -> list[Measurement]:
        """All of them, in order."""
        return [measurement for group in self.by_view.values() for measurement in group]


def without_moving_partners(plan: Plan) -> Plan:
    """The measurements that will not have to be made again when the run has gone on."""
    kept = {
        key: [each for each in group if each.partner is None or not each.partner.moves] for key, group in plan.by_view.items()
    }
    return Plan({key: group for key, group in kept.items() if group}, plan.skipped)


def plan_analysis(config: AnalysisConfig, steps: Sequence[int]) -> Plan:
    """What is to be measured at these steps; PicoError for an unknown name, option or data type."""
    by_view: dict[str, list[Measurement]] = {}
    skipped: list[str] = []
    for number, spec in enumerate(config.metrics):
        source = f"metrics.{number} ({spec.name})"
        metric = find_metric(spec.name, spec.options, source)
        found, set_aside = _of_metric(config, spec, metric, steps, source)
        if set_aside:
            skipped.append(
                f"{spec.name} takes only {', '.join(metric.traits.accepts)}: not applied to {', '.join(dict.fromkeys(set_aside))}"
            )
        if not found:
            raise PicoError(f"{source}: there is nothing to apply it to", _nothing_hint(spec, metric))
        for measurement in found:
            by_view.setdefault(measurement.view.key, []).append(measurement)
    return Plan(by_view, tuple(skipped))


def _of_metric(
    config: AnalysisConfig, spec: MetricSpec, metric: Metric, steps: Sequence[int], source: str
) -> tuple[list[Measurement], list[str]]:
    """The measurements of one metric, and what the short form offers but the metric does not take."""
    if not metric.compares and spec.target is not None:
        raise PicoError(f"{source}: {spec.name} compares nothing", "remove target_checkpoint or compare_with")
    choice = spec.target or config.compare_with or metric.traits.partner
    partners: list[Partner | None] = [*_partners(choice, steps)] if metric.compares else [None]
    found: list[Measurement] = []
    set_aside: list[str] = []
    for component in spec.components if spec.components is not None else config.components:
        for data_type in component.data_type:
            if spec.components is None and data_type not in metric.traits.accepts:
                set_aside.append(data_type)
                continue
            check_data_type(metric, data_type, source)
            view = _view(component, data_type, spec.data_split or config.data_split, source)
            found += [Measurement(metric, view, component.layers, component.heads, partner) for partner in partners]
    return found, set_aside


def _partners(choice: CompareWith, steps: Sequence[int]) -> list[Partner]:
    if isinstance(choice, Target):
        return [Partner("fixed", choice.step, choice.run, choice.layer)]
    if choice == "all":
        return [Partner("fixed", step) for step in steps]
    if choice in ("first", "last"):
        return [Partner("fixed", steps[0] if choice == "first" else steps[-1], moves=choice == "last")]
    return [Partner("beside" if choice == "beside" else "previous")]


def _view(spec: ComponentSpec, data_type: str, split: str, source: str) -> View:
    source = f"{source}, component {spec.name}"
    _refuse_misspelt(spec, source)
    component = find_component(spec.name, data_type, spec.options, source)
    depends_on_batch = component.reads != ("weights",)
    return View(component, (spec.data_split or split) if depends_on_batch else "")


def _refuse_misspelt(spec: ComponentSpec, source: str) -> None:
    """PicoError for an option that the component does not have and that is nearly a key of every component."""
    own = options_model(COMPONENTS.find(spec.name)).model_fields
    for name in spec.options:
        meant = nearest(name, {*own, *ComponentSpec.model_fields})
        if name not in own and meant is not None and meant not in own:
            raise PicoError(f"{source}: {name} is not a setting", f"did you mean `{meant}`?")


def _nothing_hint(spec: MetricSpec, metric: Metric) -> str:
    if spec.components is None:
        return f"give the file `components` with a data_type that it takes: {', '.join(metric.traits.accepts)}"
    return "name at least one component"


def canonical_json(value: Any) -> str:
    """The same text for the same settings."""

    def plain(item: Any) -> Any:
        return item.model_dump(mode="json") if isinstance(item, pydantic.BaseModel) else str(item)

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=plain)
