from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from picolm.base.config import (
    OPERATIONAL,
    Settings,
    apply_overrides,
    dump_yaml,
    identity_hash,
    identity_values,
    parse_settings,
    parse_yaml,
    read_yaml,
)
from picolm.base.errors import PicoError


class Fabric(Settings):
    num_devices: Annotated[int, OPERATIONAL] = 1
    """Devices per machine."""
    fast: bool = False


class Training(Settings):
    lr: float = 3e-4
    """Peak learning rate."""
    names: tuple[str, ...] = ("a",)
    fabric: Fabric = Fabric()


class File(Settings):
    training: Training = Training()


def test_numbers_and_words_mean_what_a_person_expects():
    text = "a: 3e-4\nb: no\nc: 12:30:00\nd: 1_000\ne: 2024-01-01\nf: ~\ng: .5\nh: -2.5e+3\ni: on\nj: 0x10\nk: true\nl: 1.\nm: 010"
    assert parse_yaml(text, "x") == {
        "a": 3e-4,
        "b": "no",
        "c": "12:30:00",
        "d": 1000,
        "e": "2024-01-01",
        "f": None,
        "g": 0.5,
        "h": -2500.0,
        "i": "on",
        "j": 16,
        "k": True,
        "l": 1.0,
        "m": 10,
    }


def test_a_key_written_twice_is_refused():
    with pytest.raises(PicoError, match=r"x\.yaml: line 2: the key `a` appears twice"):
        parse_yaml("a: 1\na: 2\n", "x.yaml")


def test_yaml_that_would_run_code_is_refused():
    with pytest.raises(PicoError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.system ['true']", "x.yaml")


def test_a_misspelt_key_names_the_right_one():
    with pytest.raises(PicoError) as caught:
        parse_settings(File, {"training": {"fabric": {"devices": 2}}}, "configs/tiny.yaml")
    assert caught.value.message == "configs/tiny.yaml: training.fabric.devices is not a setting"
    assert caught.value.hint == "did you mean `training.fabric.num_devices`?"


def test_a_key_in_the_wrong_section_names_its_place():
    with pytest.raises(PicoError, match=r"did you mean `training\.fabric\.num_devices`"):
        parse_settings(File, {"num_devices": 2}, "x.yaml")


def test_a_wrong_value_names_key_value_and_meaning():
    with pytest.raises(PicoError) as caught:
        parse_settings(File, {"training": {"lr": "fast"}}, "x.yaml")
    assert "training.lr = 'fast'" in caught.value.message
    assert caught.value.hint == "Peak learning rate."


@pytest.mark.parametrize(
    "section",
    [{"fabric": {"num_devices": True}}, {"fabric": {"fast": "yes"}}, {"fabric": {"fast": 1}}, {"lr": False}],
)
def test_booleans_are_never_guessed(section: dict[str, object]):
    with pytest.raises(PicoError, match="boolean"):
        parse_settings(File, {"training": section}, "x.yaml")


def test_lists_and_numbers_written_as_text_are_taken():
    parsed = parse_settings(File, {"training": {"lr": "3e-4", "names": ["x", "y"]}}, "x.yaml")
    assert (parsed.training.lr, parsed.training.names) == (3e-4, ("x", "y"))


def test_overrides_reach_any_depth_and_leave_the_original_alone():
    original = {"training": {"lr": 1}}
    changed = apply_overrides(original, ["training.fabric.num_devices=4", "training.lr=3e-4", "training.names=[p, q]"])
    assert changed == {"training": {"lr": 3e-4, "fabric": {"num_devices": 4}, "names": ["p", "q"]}}
    assert original == {"training": {"lr": 1}}


def test_an_override_without_a_value_is_refused():
    with pytest.raises(PicoError, match="key=value"):
        apply_overrides({}, ["training.lr"])


def test_written_settings_read_back_as_themselves():
    settings = parse_settings(File, {"training": {"lr": 1e-9, "names": ["no", "1e-4", "true", "é", "12:30"]}}, "x")
    assert parse_settings(File, parse_yaml(dump_yaml(settings), "y"), "y") == settings


def test_operational_settings_do_not_change_the_identity():
    base, other = File(), parse_settings(File, {"training": {"fabric": {"num_devices": 8}}}, "x")
    assert identity_hash(base) == identity_hash(other)
    assert "training.fabric.num_devices" not in identity_values(base)
    assert identity_hash(base) != identity_hash(parse_settings(File, {"training": {"lr": 1.0}}, "x"))


def test_a_missing_file_and_a_list_are_explained(tmp_path: Path):
    with pytest.raises(PicoError, match="there is no file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(PicoError, match="holds a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


class Steps(Settings):
    steps: tuple[Annotated[int, Field(ge=0)], ...] | str | None = None
    """Which steps."""
    every: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Every so many."""
    counts: dict[str, int] = Field(default_factory=dict)
    """How many."""
    inner: Fabric = Fabric()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, r"f\.yaml: steps = 1\.5: not of a type that is allowed here"),
        ([1, -2], r"f\.yaml: steps\.1 = -2: Input should be greater than or equal to 0"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_the_key_a_person_wrote(value: object, message: str):
    with pytest.raises(PicoError, match=rf"{message}\nhint: Which steps\.$"):
        parse_settings(Steps, {"steps": value}, "f.yaml")


def test_where_several_types_are_allowed_the_bound_is_told_and_other_places_are_counted():
    with pytest.raises(PicoError, match=r"f\.yaml: every = 0: Input should be greater than 0 \(and 1 more\)"):
        parse_settings(Steps, {"every": 0, "inner": {"num_devices": "x"}}, "f.yaml")


@pytest.mark.parametrize("key", ["steps[0]", "float", "int"])
def test_a_key_that_looks_like_the_name_of_a_type_is_still_a_key(key: str):
    with pytest.raises(PicoError, match=rf"f\.yaml: {re.escape(key)} is not a setting"):
        parse_settings(Steps, {key: 3}, "f.yaml")
    with pytest.raises(PicoError, match=rf"f\.yaml: inner\.{re.escape(key)} is not a setting"):
        parse_settings(Steps, {"inner": {key: 3}}, "f.yaml")
    with pytest.raises(PicoError, match=rf"f\.yaml: counts\.{re.escape(key)} = 'x': Input should be a valid integer"):
        parse_settings(Steps, {"counts": {key: "x"}}, "f.yaml")
