"""The JSON schemas: those shipped are those of the code, every file we ship fits them, and what is wrong does not."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from picolm.base.config import parse_yaml, read_yaml
from picolm.cli.main import app
from picolm.schemas.build import KINDS, SHIPPED, file_name, schema_of, schema_text

ROOT = Path(__file__).parents[2]
HINT = re.compile(r"^# yaml-language-server: \$schema=(.+)$", re.MULTILINE)
FOLDERS = ("configs", "studies", "src/picolm/analyze/presets", "examples")


def kind_of_file(path: Path) -> str | None:
    """What a YAML file of ours is, by its keys; None if it is none of the four."""
    keys = read_yaml(path).keys()
    for kind, key in (("study", "predictions"), ("analysis", "analysis_name"), ("training", "training"), ("report", "panels")):
        if key in keys:
            return kind
    return "training" if "model" in keys else None


ALL = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml"))
FILES = sorted(path for path in ALL if "plugin_package" not in path.parts and kind_of_file(path))  # it names what is not built in


@functools.cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema_of(kind, "built-in"))


def problems(kind: str, content: Any) -> list[str]:
    return [f"{list(error.path)}: {error.message[:200]}" for error in validator(kind).iter_errors(content)]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_schema_is_the_one_of_the_code(kind: str):
    shipped = (SHIPPED / file_name(kind)).read_text(encoding="utf-8")
    assert shipped == schema_text(schema_of(kind, "built-in")), "run `make schemas` and commit what it writes"


@pytest.mark.parametrize("kind", KINDS)
def test_every_schema_is_one(kind: str):
    jsonschema.Draft202012Validator.check_schema(schema_of(kind, "built-in"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_of_ours_fits_its_schema(path: Path):
    kind = kind_of_file(path)
    assert kind is not None
    assert problems(kind, read_yaml(path)) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_hint_for_editors_leads_to_the_schema_of_this_kind_of_file(path: Path):
    hint = HINT.search(path.read_text(encoding="utf-8"))
    if hint is None:
        assert path.is_relative_to(ROOT / "examples"), "the first line should be a hint for editors, as in its neighbours"
        return
    assert (path.parent / hint[1]).resolve() == SHIPPED / file_name(str(kind_of_file(path)))


SHORT_FORMS = [
    ("training", "training: {seeds: 7, method: plain, optimization: {optimizer: {name: adamw, fused: false}}}"),
    ("training", "training: {optimization: {lr_scheduler: {name: wsd, decay_tokens: 1e6}}, method: ./mine.py:Mine}"),
    ("training", "evaluation: {metrics: perplexity}"),
    ("training", "evaluation: {metrics: [{name: blimp, limit: 3, label: short, every_n_steps: 10}, my.package:score]}"),
    ("training", "model: {model_type: gpt_neox, d_model: 64, rotary_share: 0.5}"),
    ("training", "model: {model_type: ./mine.py:MINE, anything: 1}"),
    ("analysis", "{analysis_name: a, steps: all, metrics: [per, {norm: {norm_type: nuclear}}], components: [simple]}"),
    (
        "analysis",
        "{analysis_name: a, metrics: [{name: cka, compare_with: previous}], components: [{name: simple, data_type: weights}]}",
    ),
    (
        "analysis",
        "{analysis_name: a, metrics: [{metric_name: gini, components: [{component_name: simple, data_type: weights}]}]}",
    ),
]


@pytest.mark.parametrize(("kind", "text"), SHORT_FORMS)
def test_what_may_be_written_shortly_fits(kind: str, text: str):
    assert problems(kind, parse_yaml(text, "here")) == []


WRONG = [
    ("training", "training: {max_step: 10}", "max_step"),
    ("training", "training: {max_steps: 0}", "0 is less than"),
    ("training", "training: {method: plian}", "plian"),
    ("training", "training: {optimization: {optimizer: {name: adamw, fusd: false}}}", "fusd"),
    ("training", "evaluation: {metrics: [blimpp]}", "blimpp"),
    ("training", "model: {d_modle: 64}", "d_modle"),
    ("training", "model: {model_type: gpt_neox, attention_n_kv_heads: 2}", "attention_n_kv_heads"),
    ("analysis", "{analysis_name: a, metrics: [{name: norm, norm_typ: nuclear}]}", "norm_typ"),
    ("analysis", "{analysis_name: a, metrics: [{name: norm, norm_type: nucular}]}", "nucular"),
    ("analysis", "{metrics: [per]}", "analysis_name"),
    ("study", "{id: a, statement: b, base: c}", "required"),
]


@pytest.mark.parametrize(("kind", "text", "named"), WRONG)
def test_what_is_wrong_does_not_fit_and_is_named(kind: str, text: str, named: str):
    errors = list(validator(kind).iter_errors(parse_yaml(text, "here")))
    assert errors
    assert any(named in message for error in errors for message in all_messages(error))


def all_messages(error: jsonschema.ValidationError) -> list[str]:
    return [error.message, *(message for below in error.context or () for message in all_messages(below))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_a_schema_says_what_it_is(kind: str):
    schema = schema_of(kind, "built-in")
    sections = {**schema.get("$defs", {}), "": schema}
    silent = [
        f"{section}.{name}"
        for section, content in sections.items()
        for name, field in content.get("properties", {}).items()
        if "description" not in field and "$ref" not in field and "anyOf" not in field and "allOf" not in field
    ]
    assert silent == []


def test_a_schema_is_printed_or_written_into_a_folder(tmp_path: Path):
    printed = CliRunner().invoke(app, ["schema", "analysis"])
    assert printed.exit_code == 0
    assert printed.stdout == schema_text(schema_of("analysis"))
    result = CliRunner().invoke(app, ["schema", "all", "--out", str(tmp_path / "schemas")])
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "schemas").iterdir()) == sorted(map(file_name, KINDS))


def test_a_kind_of_file_that_has_no_schema_names_the_nearest():
    result = CliRunner().invoke(app, ["schema", "trainin"])
    assert "did you mean `training`" in str(result.exception)
