"""Writes `docs/reference/`: every setting, every name, every command and the Python face, from the sentences in the code."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import yaml
from typer.testing import CliRunner

from picolm.analyze.components.contract import COMPONENTS
from picolm.analyze.config import AnalysisConfig
from picolm.analyze.metrics.contract import METRICS
from picolm.base.config import Settings, element_types, leaf_types
from picolm.base.options import Option, options_of
from picolm.base.registry import Entry, Registry
from picolm.cli.main import VERBS, app, load_verb
from picolm.data.contract import DATA_SOURCES
from picolm.evaluate.contract import EVALUATIONS
from picolm.model.contract import ARCHITECTURES
from picolm.model.decoder import DecoderConfig
from picolm.model.neox import NeoXConfig
from picolm.optim.contract import OPTIMIZERS, SCHEDULES
from picolm.report.config import ReportConfig
from picolm.report.panels.contract import PANELS
from picolm.study.config import StudyConfig
from picolm.train.config import RunConfig
from picolm.train.methods.contract import METHODS

FILES = {
    "training": ("The training file", "Read by `pico train` and `pico plan`.", RunConfig[DecoderConfig], (NeoXConfig,)),
    "analysis": ("The analysis file", "Read by `pico analyze` and `training.online_analysis`.", AnalysisConfig, ()),
    "study": ("The study file", "Read by `pico study`.", StudyConfig, ()),
    "report": ("The report file", "Read by `pico report --config`.", ReportConfig, ()),
}
SORTS: dict[str, tuple[str, Registry]] = {
    "Architectures": ("model.model_type", ARCHITECTURES),
    "Training methods": ("training.method", METHODS),
    "Optimisers": ("training.optimization.optimizer", OPTIMIZERS),
    "Schedules": ("training.optimization.lr_scheduler", SCHEDULES),
    "Data sources": ("data.dataset.name", DATA_SOURCES),
    "Evaluations": ("evaluation.metrics", EVALUATIONS),
    "Components": ("components of an analysis", COMPONENTS),
    "Metrics": ("metrics of an analysis", METRICS),
    "Report panels": ("panels of a report", PANELS),
}
PYTHON = {
    "picolm": "What `import picolm` offers.",
    "picolm.charts": "",
    "picolm.model.contract": "",
    "picolm.train.methods.contract": "",
    "picolm.optim.contract": "",
    "picolm.data.contract": "",
    "picolm.evaluate.contract": "",
    "picolm.analyze.components.contract": "",
    "picolm.analyze.metrics.contract": "",
    "picolm.report.panels.contract": "",
    "picolm.testing": "",
}
HELP_COLUMNS = "110"


def write_reference(folder: Path) -> None:
    """One page per file format, one of names, one of commands, one of Python; unchanged pages are left alone."""
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": _settings_page(*facts) for name, facts in FILES.items()}
    pages |= {"names.md": _names_page(), "commands.md": _commands_page(), "python.md": _python_page()}
    for name, text in pages.items():
        page = folder / name
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _settings_page(title: str, use: str, model: type[Settings], others: Iterable[type[Settings]]) -> str:
    lines = [f"# {title}", "", f"{use} Generated from the settings themselves.", ""]
    seen: set[type[Settings]] = set()
    for place, section in [("", model), *((f"model ({_name_of(other)})", other) for other in others)]:
        for heading, sentence, options in _sections(section, place, seen):
            lines += [f"## {heading or 'Top level'}", "", sentence, "", *_table(options), ""]
    return "\n".join(lines)


def _name_of(model: type[Settings]) -> str:
    return str(model.model_fields["model_type"].default)


def _sections(model: type[Settings], place: str, seen: set[type[Settings]]) -> Iterator[tuple[str, str, list[Option]]]:
    """(heading, sentence, settings) of a model and of every model below it, each model once."""
    if model in seen:
        return
    seen.add(model)
    doc = " ".join((inspect.getdoc(model) or "").split())
    yield place, doc, options_of(model)
    for name, field in model.model_fields.items():
        kinds = list(leaf_types(field.annotation))
        for kind in [*kinds, *element_types(kinds)]:
            if isinstance(kind, type) and issubclass(kind, Settings) and kind is not model:
                below = f"{place}.{name}".lstrip(".")
                yield from _sections(kind, _with_kind(below, kind), seen)


def _with_kind(place: str, model: type[Settings]) -> str:
    field = model.model_fields.get("kind")
    return place if field is None else f"{place}: {field.annotation.__args__[0]}"  # type: ignore[union-attr]


def _table(options: list[Option]) -> list[str]:
    if not options:
        return ["No settings."]
    lines = ["| setting | type | default | |", "| --- | --- | --- | --- |"]
    for option in options:
        default = "required" if option.required else f"`{_shown(option.default)}`"
        lines.append(f"| `{option.name}` | {_cell(option.type)} | {default} | {_cell(option.sentence)} |")
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "..."
    return _cell(yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()).replace("`", "")


def _cell(text: str) -> str:
    """Text that stays within its cell: bars are escaped, angles are not taken for HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


def _names_page() -> str:
    own = "one of your own as `./mine.py:thing`, `package.module:thing` or by the entry point of an installed package"
    lines = ["# What can be named", "", f"By its short name in YAML; {own}. `pico list SORT` prints the same.", ""]
    for title, (place, registry) in SORTS.items():
        lines += [f"## {title}", "", f"Named in: `{place}`. Entry points: `{registry.entry_point_group}`.", ""]
        for entry in registry.entries():
            lines += _entry(entry)
    return "\n".join(lines)


def _entry(entry: Entry) -> list[str]:
    thing = getattr(entry.object, "config_class", entry.object)
    return [f"### {entry.name}", "", entry.sentence, "", *_table(options_of(thing)), ""]


def _commands_page() -> str:
    lines = ["# Commands", "", "What each command prints with `--help`.", "", *_help_of([])]
    for verb in VERBS:
        command = load_verb(verb)
        lines += [f"## pico {verb}", "", *_help_of([verb])]
        for sub in getattr(command, "commands", {}) if isinstance(command, click.Group) or hasattr(command, "commands") else ():
            lines += [f"### pico {verb} {sub}", "", *_help_of([verb, sub])]
    return "\n".join(lines)


def _help_of(words: list[str]) -> list[str]:
    environment = {"COLUMNS": HELP_COLUMNS, "TERMINAL_WIDTH": HELP_COLUMNS, "TERM": "dumb", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [*words, "--help"], env=environment, catch_exceptions=False, prog_name="pico")
    text = "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())
    return ["```text", text, "```", ""]


def _python_page() -> str:
    lines = ["# Python", "", "The face of the package, its charts, and the contracts of everything that can be added.", ""]
    for name in PYTHON:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", _doc(module), ""]
        for label, thing in _public(module):
            lines += [f"### {label}", "", "```python", _signature(label, thing), "```", "", _doc(thing), ""]
            if inspect.isclass(thing):
                lines += _members(thing)
    return "\n".join(lines)


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Classes and functions a module offers: what it lists, or what it defines."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in names:
        thing = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(thing, "__module__", "") == module.__name__
        if own and (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield name, thing


def _members(kind: type) -> list[str]:
    lines = []
    for name, member in vars(kind).items():
        target: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(target) or not target.__doc__:
            continue
        head = f"- `.{name}`" if isinstance(member, property) else f"- `.{_signature(name, target)}`"
        lines.append(f"{head}: {' '.join(_doc(target).split())}")
    return [*lines, ""] if lines else []


def _signature(name: str, thing: Callable[..., Any]) -> str:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"class {name}"
    try:
        text = str(inspect.signature(thing)).replace("(self, ", "(").replace("(self)", "()").replace("'", "")
    except ValueError:
        text = "(...)"
    return f"{name}{text}"


def _doc(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").replace("<", "&lt;") if not inspect.ismodule(thing) else (thing.__doc__ or "").strip()
