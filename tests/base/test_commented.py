"""Settings with their sentences as comments: read back they are the same, and every sentence is the field's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picolm.analyze.config import AnalysisConfig, load_analysis, preset_names
from picolm.base.commented import all_values, changed_values, commented_yaml
from picolm.base.config import Settings, identity_hash, parse_settings, parse_yaml, read_yaml, walk_fields
from picolm.study.config import StudyConfig
from picolm.train.config import load_config, parse_config

TOP = Path(__file__).parents[2]
CONFIGS = sorted((TOP / "configs").glob("*.yaml"))
STUDIES = sorted((TOP / "studies").glob("*/study.yaml"))


class Inner(Settings):
    """`outer.inner`: what is inside."""

    width: int = 3
    """How wide it is, in metres; a sentence that is long enough to be broken over more than one line of a file of this width."""
    old_width: int = 1
    """Accepted, without effect: `width` says it."""


class Outer(Settings):
    """Everything."""

    inner: Inner = Inner()
    names: tuple[str, ...] = ("no", "12:30")
    """Names that YAML of old would take for something else."""


def test_every_key_stands_under_the_sentence_of_its_field():
    text = commented_yaml(Outer, {"inner": {"width": 4}, "names": ["no", "1e3"]})
    assert text.splitlines()[:2] == ["# What is inside.", "inner:"]
    assert text.splitlines()[2].startswith("  # How wide it is, in metres;")
    assert text.splitlines()[4] == "  width: 4"
    assert "# Names that YAML of old would take for something else." in text
    assert parse_settings(Outer, parse_yaml(text, "it"), "it").names == ("no", "1e3")
    assert max(len(line) for line in text.splitlines()) <= 110


def test_a_sentence_is_said_once():
    study: dict[str, Any] = {"variants": {name: {"role": "baseline"} for name in "abc"}}
    text = commented_yaml(StudyConfig, study)
    assert text.count("# baseline: what one would do otherwise") == 1
    assert parse_yaml(text, "it") == study


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_configuration_with_comments_is_the_same_configuration(path: Path):
    config = load_config(path)
    values = read_yaml(path)
    assert parse_yaml(commented_yaml(type(config), values), "it") == values


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_differs_from_the_defaults_is_the_whole_configuration(path: Path):
    config = load_config(path)
    for values in (
        changed_values(config, always={"model": {"model_type": "names the model that has these settings"}}),
        all_values(config),
    ):
        again = parse_config(parse_yaml(commented_yaml(type(config), values), "it"), "it", default_name=path.stem)
        assert again == config
        assert identity_hash(again) == identity_hash(config)


@pytest.mark.parametrize("name", preset_names())
def test_an_analysis_with_comments_is_the_same_analysis(name: str):
    analysis = load_analysis(name)
    values = analysis.model_dump(mode="json")
    assert parse_settings(AnalysisConfig, parse_yaml(commented_yaml(AnalysisConfig, values), name), name) == analysis


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_a_shipped_study_with_comments_is_the_same_study(path: Path):
    values = read_yaml(path)
    assert parse_yaml(commented_yaml(StudyConfig, values), "it") == values


def test_settings_without_effect_are_not_written():
    assert all_values(Outer()) == {"inner": {"width": 3}, "names": ["no", "12:30"]}
    silent = [key for key, field in walk_fields(Outer) if not field.description]
    assert silent == []
