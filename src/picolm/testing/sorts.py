"""The nine sorts of thing that can be added from outside, and how each is found, described and checked.

Contracts are named as text and imported when a sort is used, so that a list of the sorts costs nothing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from picolm.base.errors import PicoError, suggestion
from picolm.base.options import Option, options_of
from picolm.base.registry import Entry, Registry
from picolm.testing.findings import Finding


@dataclass(frozen=True)
class Sort:
    """One sort of extension."""

    name: str
    sentence: str
    contract: str
    """Module that says what it must look like."""
    registry_name: str
    check_name: str
    setting: str
    """Where it is named in YAML."""
    also: tuple[str, ...] = ()
    """Other words for it."""

    @property
    def registry(self) -> Registry:
        """Where all of them are found by name."""
        registry: Registry = getattr(importlib.import_module(self.contract), self.registry_name)
        return registry

    @property
    def check(self) -> Callable[..., list[Finding]]:
        """Its conformance check."""
        check: Callable[..., list[Finding]] = getattr(importlib.import_module("picolm.testing.checks"), self.check_name)
        return check


SORTS = (
    Sort(
        "architecture",
        "A causal language model with its settings and the layout of its tensors.",
        "picolm.model.contract",
        "ARCHITECTURES",
        "check_architecture",
        "model.model_type",
        also=("model",),
    ),
    Sort(
        "training-method",
        "How one update is made: losses, adapters, merges, what is logged of it.",
        "picolm.train.methods.contract",
        "METHODS",
        "check_method",
        "training.method",
        also=("method",),
    ),
    Sort(
        "optimizer",
        "What turns gradients into an update.",
        "picolm.optim.contract",
        "OPTIMIZERS",
        "check_optimizer",
        "training.optimization.optimizer",
        also=("optimiser",),
    ),
    Sort(
        "schedule",
        "The learning rate as a function of the update number.",
        "picolm.optim.contract",
        "SCHEDULES",
        "check_schedule",
        "training.optimization.lr_scheduler",
    ),
    Sort(
        "data-source",
        "Numbered rows of tokens to train on.",
        "picolm.data.contract",
        "DATA_SOURCES",
        "check_data_source",
        "data.dataset.name",
        also=("source",),
    ),
    Sort(
        "evaluation",
        "A model turned into scores at a checkpoint.",
        "picolm.evaluate.contract",
        "EVALUATIONS",
        "check_evaluation",
        "evaluation.metrics",
    ),
    Sort(
        "component",
        "A snapshot cut into labelled matrices.",
        "picolm.analyze.components.contract",
        "COMPONENTS",
        "check_component",
        "components, in an analysis file",
    ),
    Sort(
        "metric",
        "One number from a matrix, or from two.",
        "picolm.analyze.metrics.contract",
        "METRICS",
        "check_metric",
        "metrics, in an analysis file",
    ),
    Sort(
        "panel",
        "A section of the report.",
        "picolm.report.panels.contract",
        "PANELS",
        "check_panel",
        "panels, in a report file",
        also=("report-panel",),
    ),
)


@dataclass(frozen=True)
class Found:
    """An object named on the command line, and the sort it is of."""

    sort: Sort
    reference: str
    object: Any


def find_sort(word: str) -> Sort:
    """The sort called `word`, in the singular or the plural; PicoError with the nearest."""
    wanted = word.lower().replace(" ", "-").replace("_", "-")
    for sort in SORTS:
        if wanted.removesuffix("s") in {name.removesuffix("s") for name in (sort.name, *sort.also)}:
            return sort
    raise PicoError(f"`{word}` is not a sort of extension", suggestion(wanted, [sort.name for sort in SORTS]))


def options_of_entry(entry: Entry) -> list[Option]:
    """The settings of something registered; those of an architecture are the fields of its configuration."""
    fields = vars(entry.object).get("config_class") if not inspect.isroutine(entry.object) else None
    return options_of(entry.object if fields is None else fields)


def find_object(reference: str) -> Found:
    """What `sort:name`, `module:object` or `./file.py:object` names, and which sort it is of.

    A file's or module's object says by its base class, its decorator or its parameters what it is; `sort:` before the
    reference decides where that is not enough: `schedule:./mine.py:triangle`.
    """
    first, _, rest = reference.partition(":")
    named = _sort_before(first, rest)
    if named is not None:
        return Found(named, rest, named.registry.find(rest))
    if ":" not in reference:
        return _by_short_name(reference)
    from picolm.base.registry import load_object

    thing = load_object(reference)
    return Found(_sort_of(thing, reference), reference, thing)


def _sort_before(word: str, rest: str) -> Sort | None:
    if not rest or word.endswith(".py") or "/" in word or "." in word:
        return None
    names = {name.removesuffix("s") for sort in SORTS for name in (sort.name, *sort.also)}
    return find_sort(word) if word.lower().replace("_", "-").removesuffix("s") in names else None


def _by_short_name(name: str) -> Found:
    """Something registered, by its name alone, where only one sort has it."""
    holders = [(sort, entry) for sort in SORTS for entry in sort.registry.entries() if entry.name == name]
    if len(holders) == 1:
        return Found(holders[0][0], name, holders[0][1].object)
    if holders:
        choices = " or ".join(f"`{sort.name}:{name}`" for sort, _ in holders)
        raise PicoError(f"`{name}` is the name of {len(holders)} things", f"write {choices}")
    known = [f"{sort.name}:{entry.name}" for sort in SORTS for entry in sort.registry.entries()]
    near = [each for each in known if each.endswith(f":{name}")] or known
    raise PicoError(
        f"nothing is called `{name}`", suggestion(name, [each.partition(":")[2] for each in near]) + "; see `pico list`"
    )


def _sort_of(thing: Any, reference: str) -> Sort:
    """The sort of an object, by where it is registered, its base class, or its parameters."""
    for sort in SORTS:
        if any(entry.object is thing for entry in sort.registry.entries()):
            return sort
    name = _by_class(thing) or _by_traits(thing) or _by_parameters(thing)
    if name is not None:
        return find_sort(name)
    choices = ", ".join(f"`{sort.name}:{reference}`" for sort in SORTS[:3])
    raise PicoError(
        f"{reference}: what sort of extension is this? Neither its base class nor its parameters say",
        f"write the sort before it: {choices}, ... (`pico list` has all nine)",
    )


def _by_class(thing: Any) -> str | None:
    from picolm.evaluate.contract import Evaluation
    from picolm.model.contract import Architecture
    from picolm.train.methods.contract import TrainingMethod

    if isinstance(thing, Architecture):
        return "architecture"
    if not inspect.isclass(thing):
        return None
    for base, name in ((TrainingMethod, "training-method"), (Evaluation, "evaluation")):
        if issubclass(thing, base):
            return name
    members = {member for kind in thing.__mro__ for member in vars(kind)}
    return "data-source" if "split" in members else None


def _by_traits(thing: Any) -> str | None:
    from picolm.analyze.components.contract import Traits as ComponentTraits
    from picolm.analyze.metrics.contract import Traits as MetricTraits

    traits = vars(thing).get("traits") if inspect.isfunction(thing) else None
    return {ComponentTraits: "component", MetricTraits: "metric"}.get(type(traits))


def _by_parameters(thing: Any) -> str | None:
    """What the parameters of a plain function say: `snapshot`, `scorer` and so on are what the contracts call them."""
    if not inspect.isfunction(thing):
        return None
    parameters = inspect.signature(thing).parameters
    positional = [name for name, each in parameters.items() if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    if not positional and {"max_steps", "warmup_steps"} <= parameters.keys():
        return "schedule"
    if positional and "lr" in parameters and parameters["lr"].kind is inspect.Parameter.KEYWORD_ONLY:
        return "optimizer"
    by_first: Mapping[str, str] = {"snapshot": "component", "scorer": "evaluation", "data": "panel"}
    if positional and positional[0] in by_first:
        return by_first[positional[0]]
    returns_number = thing.__annotations__.get("return") in ("float", float)
    return "metric" if len(positional) in (1, 2) and returns_number else None
