"""Settings as YAML with the sentence of every field above it: what `pico new` writes.

Plain values come in, with the model they will be read by; text leaves. The sentences are those of the fields, so a comment
cannot say anything else than the help, the schema and the reference.
"""

from __future__ import annotations

import textwrap
from typing import Any

import pydantic
import yaml
from pydantic.fields import FieldInfo

from picolm.base.config import Settings, SettingsDumper, element_types, kinds_named, leaf_types, walk_fields

WIDTH = 110
NO_EFFECT = "Accepted"
"""Sentences of settings that are read for the sake of old files begin so; nobody should write them anew."""


def commented_yaml(model: type[Settings], values: dict[str, Any]) -> str:
    """`values` as YAML that `model` reads, each key under the sentence of its field; a sentence is said once."""
    return "\n".join(_mapping_lines([model], values, "", set())) + "\n"


def all_values(settings: Settings) -> dict[str, Any]:
    """Every setting as nested plain values, defaults written out, without those that have no effect."""
    return _without_effectless(type(settings), settings.model_dump(mode="json"))


def changed_values(settings: Settings, always: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults, and those that `always` names, nested, in the model's order."""
    fields = dict(walk_fields(type(settings)))
    kept: dict[str, Any] = {}
    for key, value in _leaves(all_values(settings), set(fields)):
        default = _plain(fields[key].get_default(call_default_factory=True)) if not fields[key].is_required() else None
        if value != default or _has(always, key):
            section = kept
            *parents, last = key.split(".")
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
    return kept


def _plain(value: Any) -> Any:
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")


def _has(values: dict[str, Any], key: str) -> bool:
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


def _leaves(values: dict[str, Any], keys: set[str], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every setting in nested values."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key in keys or not isinstance(value, dict):
            found.append((key, value))
        else:
            found += _leaves(value, keys, f"{key}.")
    return found


def _without_effectless(model: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in values.items():
        field = model.model_fields[name]
        sections = _sections(field.annotation)
        if (field.description or "").startswith(NO_EFFECT):
            continue
        nested = _without_effectless(sections[0], value) if len(sections) == 1 and _is_section(sections, value) else value
        if nested != {} or value == {}:
            kept[name] = nested
    return kept


def _sections(annotation: Any) -> list[type[Settings]]:
    return [kind for kind in leaf_types(annotation) if isinstance(kind, type) and issubclass(kind, Settings)]


def _is_section(kinds: list[type[Settings]], value: Any) -> bool:
    """Whether a mapping is settings of these kinds, and not one thing named with its options."""
    return isinstance(value, dict) and bool(kinds) and all(kind.model_config.get("extra") != "allow" for kind in kinds)


def _mapping_lines(kinds: list[Any], values: dict[str, Any], indent: str, said: set[str]) -> list[str]:
    """The lines of one section; `kinds` are the models it may be read by."""
    model = _chosen([kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)], values)
    lines: list[str] = []
    for key, value in values.items():
        field = model.model_fields.get(key) if model is not None else None
        types = list(leaf_types(field.annotation)) if field is not None else element_types(kinds)
        comment = _sentence(field) if field is not None and key != "kind" else ""
        if comment not in said:
            lines += _comment(comment, indent)
            said.add(comment)
        lines += _entry_lines(key, types, value, indent, said)
        if indent == "":
            lines.append("")
    return lines[:-1] if indent == "" else lines


def _chosen(models: list[type[Settings]], values: dict[str, Any]) -> type[Settings] | None:
    """Of several models the one of this `kind`, else the one that has all the keys."""
    of_kind = [model for model in models if values.get("kind") in kinds_named(model)]
    with_keys = [model for model in models if model.model_fields.keys() >= values.keys()]
    return next(iter(of_kind or with_keys or models), None)


def _entry_lines(key: str, types: list[Any], value: Any, indent: str, said: set[str]) -> list[str]:
    inner = indent + "  "
    sections = _sections_below(types)
    if value and isinstance(value, dict) and sections:
        return [f"{indent}{_scalar(key)}:", *_mapping_lines(types, value, inner, said)]
    if value and isinstance(value, list) and sections and all(isinstance(item, dict) for item in value):
        lines = [f"{indent}{_scalar(key)}:"]
        for item in value:
            below = _mapping_lines(element_types(types), item, inner + "  ", said)
            place = next(number for number, line in enumerate(below) if not line.lstrip().startswith("#"))
            lines += [*below[:place], f"{inner}- {below[place].lstrip()}", *below[place + 1 :]]
        return lines
    return _value_lines(key, value, indent)


def _sections_below(types: list[Any]) -> list[type[Settings]]:
    """Models of settings, not of named things, among these types and the elements of mappings and lists of them."""
    kinds = [kind for kind in [*types, *element_types(types)] if isinstance(kind, type) and issubclass(kind, Settings)]
    return [kind for kind in kinds if kind.model_config.get("extra") != "allow"]


def _value_lines(key: str, value: Any, indent: str) -> list[str]:
    """A value on one line if it fits, else a list item by item."""
    line = f"{indent}{_scalar(key)}: {_flow(value)}"
    if not isinstance(value, list) or (len(line) <= WIDTH and not any(isinstance(item, dict) for item in value)):
        return [line]
    return [f"{indent}{_scalar(key)}:", *(f"{indent}  - {_flow(item)}" for item in value)]


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=SettingsDumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _scalar(key: str) -> str:
    return _flow(key)


def _sentence(field: FieldInfo) -> str:
    """The field's own sentence; of a section that has none, that of its model without the section's name."""
    own = " ".join((field.description or "").split())
    if own:
        return own
    sections = _sections(field.annotation)
    if len(sections) != 1:
        return ""
    doc = " ".join((sections[0].__doc__ or "").split("\n\n")[0].split())
    text = doc.partition("`: ")[2] if doc.startswith("`") else doc
    return text[:1].upper() + text[1:]


def _comment(sentence: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(sentence, WIDTH - len(indent) - 2)] if sentence else []
