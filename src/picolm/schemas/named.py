"""The place of a file where a thing is named: which names there are, and which options go with which."""

from __future__ import annotations

from typing import Any, Literal

from picolm.base.registry import Entry, options_model
from picolm.testing.sorts import find_sort

Schema = dict[str, Any]
Names = Literal["built-in", "installed"]
OWN: Schema = {"type": "string", "pattern": ":", "description": "Your own: `module:object` or `./mine.py:object`."}
GIVEN_BY_THE_RUN = {"optimizer": {"lr"}, "schedule": {"max_steps", "warmup_steps"}}
"""Settings that stand elsewhere in the file."""


def known(sort: str, names: Names) -> list[Entry]:
    """What is registered under a sort, by name."""
    entries = find_sort(sort).registry.entries()
    chosen = [entry for entry in entries if names == "installed" or entry.origin.startswith("picolm.")]
    return sorted(chosen, key=lambda entry: entry.name)


def name_schema(sort: str, names: Names) -> Schema:
    """A name: one of those known, each with its sentence, or a reference to an object of one's own."""
    return {"anyOf": [*({"const": each.name, "description": each.sentence} for each in known(sort, names)), OWN]}


def named_form(plain: Schema, sort: str, names: Names, definitions: Schema) -> Schema:
    """The schema of a thing of this sort with its options. `plain`: that of any thing, its last form the mapping in full."""
    *short, whole = plain["anyOf"]
    forms = [name_schema(sort, names) if form == {"type": "string"} else form for form in short]
    return {"title": plain.get("title", sort), "anyOf": [*forms, _mapping(whole, sort, names, definitions)]}


def _mapping(whole: Schema, sort: str, names: Names, definitions: Schema) -> Schema:
    cases = []
    for entry in known(sort, names):
        options = _options(entry, sort, definitions)
        own = dict.fromkeys(whole["properties"], True)
        then = {"properties": {**options, **own}, "additionalProperties": False}
        cases.append({"if": {"properties": {"name": {"const": entry.name}}, "required": ["name"]}, "then": then})
    properties = {**whole["properties"], "name": name_schema(sort, names)}
    return {**whole, "properties": properties, "allOf": cases}


def _options(entry: Entry, sort: str, definitions: Schema) -> Schema:
    """Schema of each option that may ride along."""
    model = with_definitions(options_model(entry.object).model_json_schema(), definitions)
    options = {name: each for name, each in model.get("properties", {}).items() if name not in GIVEN_BY_THE_RUN.get(sort, ())}
    if sort == "schedule":
        lengths = [name.removesuffix("_steps") for name in options if name.endswith("_steps")]
        options |= {f"{length}_tokens": {"type": "number", "description": f"{length}_steps in tokens."} for length in lengths}
    return options


def with_definitions(schema: Schema, definitions: Schema) -> Schema:
    """A schema whose definitions are moved to those of the file."""
    definitions.update(schema.pop("$defs", {}))
    return schema
