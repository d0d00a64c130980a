"""`pico list` and `pico check`, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from picolm.base.errors import PicoError
from picolm.cli.main import app
from picolm.testing.sorts import SORTS, find_object, find_sort

MINE = '''
from torch import Tensor

def gap(sigma_R: Tensor, *, k: int = 1) -> float:
    """Distance between two neighbouring singular values."""
    return float(sigma_R[k - 1] - sigma_R[k]) if sigma_R.numel() > k else 0.0

def wobble(matrix_MN: Tensor) -> float:
    """Not a number where there is nothing."""
    return float(matrix_MN.abs().max() / matrix_MN.abs().mean())

def triangle(*, max_steps: int, warmup_steps: int):
    """Up, then down."""
    return lambda step: min(1.0, (step + 1) / (warmup_steps + 1), max(0.0, (max_steps - step) / max_steps))

def pieces(snapshot, data_type):
    """Nothing yet."""
    yield from ()

def scored(scorer):
    """A number."""
    return 1.0

def drawn(data):
    """A panel."""

def stepping(parameters, *, lr: float):
    """An optimiser."""

def anything(whatever):
    """Who knows."""

def wrong(*, max_steps: int, warmup_steps: int, **options):
    """Takes everything."""
    return lambda step: 0.5
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.py"


def pico(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_nine_sorts_are_listed():
    code, text = pico("list")
    assert code == 0
    assert all(sort.name in text for sort in SORTS)
    assert len(json.loads(pico("list", "--json")[1])) == len(SORTS) == 9


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name)
def test_everything_listed_has_a_sentence_an_origin_and_typed_options(sort):
    rows = json.loads(pico("list", sort.name, "--json")[1])
    assert {row["name"] for row in rows} == {entry.name for entry in sort.registry.entries()}
    for row in rows:
        assert row["sentence"].strip() and row["origin"]
        assert all(option["type"] for option in row["options"])


def test_options_are_shown_with_type_default_and_sentence():
    text = pico("list", "metrics")[1]
    assert "norm_type: frobenius | nuclear | spectral | inf | one | max (must be given)" in text
    assert "neighbours: int (default 10)" in text
    assert "Updates between two resets." in pico("list", "training-method")[1]
    assert "d_model: int > 0 (default 768). Width of the residual stream." in pico("list", "architecture")[1]


@pytest.mark.parametrize("word", ["training methods", "method", "training_method", "METHODS"])
def test_a_sort_may_be_written_as_one_likes(word: str):
    assert find_sort(word).name == "training-method"


def test_an_unknown_sort_names_the_nearest():
    with pytest.raises(PicoError, match="did you mean `metric`"):
        find_sort("metrix")


@pytest.mark.parametrize(
    ("reference", "sort"),
    [
        ("per", "metric"),
        ("metric:per", "metric"),
        ("method:plain", "training-method"),
        ("picolm.train.methods.plain:Plain", "training-method"),
        ("picolm.optim.schedules:wsd", "schedule"),
        ("picolm.evaluate.samples:Samples", "evaluation"),
        ("picolm.data.sources:PreparedData", "data-source"),
        ("./mine.py:gap", "metric"),
        ("./mine.py:triangle", "schedule"),
        ("./mine.py:pieces", "component"),
        ("./mine.py:scored", "evaluation"),
        ("./mine.py:drawn", "panel"),
        ("./mine.py:stepping", "optimizer"),
        ("panel:./mine.py:anything", "panel"),
    ],
)
def test_an_object_says_of_which_sort_it_is(reference: str, sort: str, mine: Path):
    assert find_object(reference).sort.name == sort


def test_an_object_that_does_not_say_its_sort_is_asked_for_it(mine: Path):
    with pytest.raises(PicoError, match="what sort of extension is this") as caught:
        find_object("./mine.py:anything")
    assert "architecture:./mine.py:anything" in caught.value.hint


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(PicoError, match="nothing is called `gnii`") as caught:
        find_object("gnii")
    assert "`gini`" in caught.value.hint


def test_a_metric_of_ones_own_is_checked(mine: Path):
    code, text = pico("check", "./mine.py:gap", "--set", "k=2")
    assert code == 0, text
    assert "ok  it computes in float64" in text
    assert "0 broken" in text


def test_a_broken_promise_is_said_with_its_reason_and_ends_with_code_1(mine: Path):
    code, text = pico("check", "./mine.py:wobble")
    assert code == 1
    assert "FAILS  it says `Undefined` with a reason where it has no value" in text
    assert "for an all-zero matrix it returns nan: raise picolm.Undefined" in text
    assert "why it matters: a NaN without a reason" in text


def test_findings_can_be_had_as_json(mine: Path):
    code, text = pico("check", "schedule:./mine.py:wrong", "--json")
    record = json.loads(text)
    assert (code, record["sort"]) == (1, "schedule")
    failed = [finding for finding in record["findings"] if finding["verdict"] == "does not hold"]
    assert record["failed"] == len(failed) >= 2
    assert {"promise", "verdict", "detail", "why"} == failed[0].keys()


def test_a_setting_without_a_default_is_asked_for():
    code, text = pico("check", "data-source:prepared")
    assert code == 1
    assert "path must be given" in text
    assert "--set name=value" in text
