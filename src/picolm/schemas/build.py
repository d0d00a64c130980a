"""JSON schemas of the files a person writes, so that an editor completes and checks them while they are typed.

They come from the settings models, with the names and options of everything that is registered. Those that are shipped, in this
folder, know the built-in names; `pico schema` also writes those of the packages installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError, suggestion
from picolm.schemas.named import Names, named_form

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SHIPPED = Path(__file__).parent
Schema = dict[str, Any]

BY_CLASS = {"EvaluationEntry": "evaluation", "MetricSpec": "metric", "ComponentSpec": "component"}
"""Definitions that always name a thing of one sort."""
BY_FIELD = {
    ("TrainingConfig", "method"): "training-method",
    ("OptimizationConfig", "optimizer"): "optimizer",
    ("OptimizationConfig", "lr_scheduler"): "schedule",
}
"""(definition, property) that names a thing of one sort."""


def training_schema(names: Names) -> Schema:
    """The schema of a training file; the section `model` follows `model_type`."""
    from picolm.model.decoder import DecoderConfig
    from picolm.train.config import RunConfig

    schema = _specialised(RunConfig[DecoderConfig].model_json_schema(), names)
    schema.pop("required", None)
    schema["properties"]["model"] = _model_section(schema["$defs"], names)
    return _finished(schema, "picolm training file")


def analysis_schema(names: Names) -> Schema:
    """The schema of an analysis file."""
    from picolm.analyze.config import AnalysisConfig

    return _finished(_specialised(AnalysisConfig.model_json_schema(), names), "picolm analysis file")


def study_schema(names: Names) -> Schema:
    """The schema of a study file."""
    from picolm.study.config import StudyConfig

    return _finished(StudyConfig.model_json_schema(), "picolm study file")


def report_schema(names: Names) -> Schema:
    """The schema of a report file."""
    from picolm.report.config import ReportConfig

    schema = ReportConfig.model_json_schema()
    schema["$defs"]["Named"] = named_form(schema["$defs"]["Named"], "panel", names, schema["$defs"])
    return _finished(schema, "picolm report file")


KINDS: dict[str, Callable[[Names], Schema]] = {
    "training": training_schema,
    "analysis": analysis_schema,
    "study": study_schema,
    "report": report_schema,
}
"""Kind of file -> what makes its schema."""


def schema_of(kind: str, names: Names = "installed") -> Schema:
    """The schema of a kind of file. `names`: those of every package installed, or of the built-in things alone."""
    if kind not in KINDS:
        raise PicoError(f"there is no schema of a `{kind}` file", suggestion(kind, KINDS))
    return KINDS[kind](names)


def schema_text(schema: Schema) -> str:
    """A schema as the text of its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def file_name(kind: str) -> str:
    """`training.schema.json`."""
    return f"{kind}.schema.json"


def write_schemas(folder: Path, names: Names = "installed") -> list[Path]:
    """Write the schema of every kind of file into a folder; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in KINDS:
        path = folder / file_name(kind)
        path.write_text(schema_text(schema_of(kind, names)), encoding="utf-8")
        written.append(path)
    return written


def _specialised(schema: Schema, names: Names) -> Schema:
    """The schema in which a name is one of those registered, and its options are those of what it names."""
    definitions = schema["$defs"]
    plain = definitions.get("Named")
    for (holder, field), sort in BY_FIELD.items():
        if holder in definitions:
            old = definitions[holder]["properties"][field]
            kept = {key: value for key, value in old.items() if key != "$ref"}
            definitions[holder]["properties"][field] = {**kept, **named_form(plain, sort, names, definitions)}
    for holder, sort in BY_CLASS.items():
        if holder in definitions:
            definitions[holder] = named_form(definitions[holder], sort, names, definitions)
    definitions.pop("Named", None)
    return schema


def _model_section(definitions: Schema, names: Names) -> Schema:
    from picolm.model.contract import ModelConfig
    from picolm.schemas.named import known, name_schema, with_definitions

    default = ModelConfig.model_fields["model_type"].default
    cases = []
    for entry in known("architecture", names):
        section = with_definitions(entry.object.config_class.model_json_schema(), definitions)
        chosen: Schema = {"properties": {"model_type": {"const": entry.name}}}
        if entry.name != default:
            chosen["required"] = ["model_type"]
        cases.append({"if": chosen, "then": section})
    definitions.pop("DecoderConfig", None)
    return {
        "type": "object",
        "description": "The model: its architecture and shape.",
        "properties": {"model_type": name_schema("architecture", names)},
        "allOf": cases,
    }


def _finished(schema: Schema, title: str) -> Schema:
    return {"$schema": DIALECT, **schema, "title": title}
