"""What all nine sorts promise: a sentence that says what the thing is, and settings that can be written in YAML."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from picolm.base.config import Settings, dump_yaml, parse_settings, parse_yaml
from picolm.base.errors import PicoError
from picolm.base.registry import checked_options, options_model
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable, Promise


class Subject(Protocol):
    """What is examined: the object named in YAML and the options it is examined with."""

    @property
    def thing(self) -> Any: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Unfilled:
    """An object whose settings could not be filled in."""

    thing: Any
    options: Mapping[str, Any]


def examine(
    promises: CheckList,
    thing: Any,
    options: Mapping[str, Any],
    subject: Callable[[], Any],
    *,
    leave_out: Iterable[str] = (),
) -> list[Finding]:
    """The findings about the subject; where its settings cannot be filled in, about the settings alone."""
    try:
        made = subject()
    except PicoError as error:
        refused = Finding(
            FILLED, "does not hold", f"{error.message} {f'({error.hint})' if error.hint else ''}".strip(), FILLED_WHY
        )
        return [*CheckList(promises.sort, *COMMON).examine(Unfilled(thing, options)), refused]
    return promises.examine(made, leave_out=leave_out)


FILLED = "it can be made with its settings"
FILLED_WHY = "nothing else can be examined before; settings without a default are given as `--set name=value`."


def filled(thing: Callable[..., Any], options: Mapping[str, Any], name: str, **given: Any) -> dict[str, Any]:
    """All options: those given, then an example for each that has no default, then the defaults. PicoError if that fails."""
    chosen = {**{key: value for key, value in given.items() if key in options_model(thing).model_fields}, **options}
    for key, field in options_model(thing).model_fields.items():
        example = _example(field.annotation)
        if key not in chosen and field.is_required() and example is not None:
            chosen[key] = example
    return checked_options(thing, chosen, name)


def _example(annotation: Any) -> Any:
    """A value for a setting that must be given, where its type says enough."""
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)[0]
    return {int: 3, float: 0.5, bool: True}.get(annotation)


def _has_a_sentence(subject: Subject) -> str:
    sentence = inspect.cleandoc(subject.thing.__doc__ or "").split("\n", 1)[0].strip()  # its own, not one it inherits
    if not sentence:
        raise Broken("it has no docstring: begin it with one sentence that says what comes out")
    return sentence


def _settings_are_keyword_only(subject: Subject) -> str:
    if isinstance(subject.thing, type) and issubclass(subject.thing, Settings):
        raise NotApplicable("its settings are a Settings model")
    for parameter in inspect.signature(subject.thing).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise Broken(f"`**{parameter.name}` names no setting: name each of them after `*`")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.annotation is inspect.Parameter.empty:
            raise Broken(f"the setting `{parameter.name}` has no type: annotate it, such as `{parameter.name}: int = 1`")
    names = list(options_model(subject.thing).model_fields)
    return f"settings: {', '.join(names)}" if names else "it has no settings"


def _settings_survive_yaml(subject: Subject) -> str | None:
    model = options_model(subject.thing)
    if not model.model_fields:
        raise NotApplicable("it has no settings")
    for name, field in model.model_fields.items():
        if field.is_required():
            continue
        default = field.get_default(call_default_factory=True)
        try:
            model.__pydantic_validator__.validate_assignment(model.model_construct(), name, default)
        except ValueError as error:
            raise Broken(f"the default of `{name}`, {default!r}, is not of its type: {_first_line(error)}") from error
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    if required - set(subject.options):
        return None
    before = parse_settings(model, dict(subject.options), "options")
    after = parse_settings(model, parse_yaml(dump_yaml(before), "options"), "options written as YAML")
    if before != after:
        raise Broken(f"written to YAML and read again they differ: {before} and {after}")
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-2] if len(lines) > 2 else lines[0]


SENTENCE = Promise(
    "it says in one sentence what it is",
    "`pico list` and the documentation show the first line of the docstring; without it nobody knows what the name stands for.",
    _has_a_sentence,
)
KEYWORD_ONLY = Promise(
    "its settings are keyword-only and typed",
    "the parameters after `*` are the settings of the YAML file and their annotations the types: without a type any text is "
    "accepted, and `**options` never receives anything.",
    _settings_are_keyword_only,
)
YAML = Promise(
    "its settings survive being written to YAML",
    "a run records its settings and reads them again when it continues; a value that changes on the way makes another run.",
    _settings_survive_yaml,
)
COMMON = (SENTENCE, KEYWORD_ONLY, YAML)
