"""The settings of a thing named in YAML, in words: what `pico list` shows and what a conformance check looks at."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import annotated_types
import pydantic
from pydantic.fields import FieldInfo

from picolm.base.config import Settings
from picolm.base.registry import options_model


@dataclass(frozen=True)
class Option:
    """One setting: its name, type in words, default as a JSON value, and its sentence if it has one."""

    name: str
    type: str
    required: bool
    default: Any
    sentence: str = ""


def options_of(thing: Callable[..., Any] | type[Settings]) -> list[Option]:
    """The settings of a function, a class with keyword-only parameters, or a settings model."""
    is_model = isinstance(thing, type) and issubclass(thing, Settings)
    model: type[Settings] = thing if is_model else options_model(thing)  # type: ignore[assignment]
    return [_option(name, field) for name, field in model.model_fields.items()]


def _option(name: str, field: FieldInfo) -> Option:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    words = type_in_words(field.annotation, tuple(field.metadata))
    return Option(name, words, field.is_required(), plain_value(default), " ".join((field.description or "").split()))


def plain_value(value: Any) -> Any:
    """A default as YAML would hold it."""
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json", fallback=str)


def type_in_words(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """A type as a person would write it: `int > 0 or null`, `spectral | nuclear`, `list of str`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return type_in_words(arguments[0], (*limits, *arguments[1:]))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_in_words(argument, limits) for argument in arguments)
    if origin is typing.Literal:
        return " | ".join(str(plain_value(value)) for value in arguments)
    if origin in (tuple, list, set, frozenset):
        return _sequence(origin, arguments)
    if origin is dict:
        return f"mapping of {type_in_words(arguments[0])} to {type_in_words(arguments[1])}"
    if annotation is type(None):
        return "null"
    name = "anything" if annotation is Any else getattr(annotation, "__name__", str(annotation))
    return name + "".join(_limit(limit) for limit in limits)


def _sequence(origin: Any, arguments: tuple[Any, ...]) -> str:
    items = [argument for argument in arguments if argument is not ...]
    if origin is tuple and ... not in arguments:
        return f"[{', '.join(type_in_words(item) for item in items)}]"
    return f"list of {type_in_words(items[0])}" if items else "list"


def _limit(limit: Any) -> str:
    if isinstance(limit, FieldInfo):
        return "".join(_limit(each) for each in limit.metadata)
    signs = {annotated_types.Gt: "gt", annotated_types.Ge: "ge", annotated_types.Lt: "lt", annotated_types.Le: "le"}
    words = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    for kind, sign in signs.items():
        if isinstance(limit, kind):
            return f" {words[sign]} {getattr(limit, sign)}"
    return ""
