"""A foreign package adds one of each sort: installed in a fresh environment, it is found, checked, and used from YAML."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pandas
import pytest

from picolm.base.config import read_yaml
from picolm.face import open_run
from picolm.records.snapshot import read_layout

from .make_environment import PACKAGE, PYTHON

GROUPS = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]["entry-points"]


def pico(*words: str, folder: Path) -> str:
    """What a command of the fresh environment prints, in a folder that is not the repository."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON.with_name("pico")), *words]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout[-2000:]}\n{result.stderr[-3000:]}"
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the three files a user writes, and the run they made."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("training.yaml", "analysis.yaml", "report.yaml"):
        shutil.copy(PACKAGE / name, folder / name)
    pico("train", "training.yaml", folder=folder)
    pico("analyze", "runs/example", "analysis.yaml", folder=folder)
    pico("report", "runs/example", "--config", "report.yaml", "--out", "page.html", folder=folder)
    return folder


def test_the_environment_has_the_wheel_and_not_the_working_tree(tmp_path: Path):
    command = [str(PYTHON), "-c", "import picolm, pico_example; print(picolm.__file__, pico_example.__file__)"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert all(str(PYTHON.parents[1]) in path for path in found)


def test_the_package_adds_one_of_each_of_the_nine_sorts(tmp_path: Path):
    sorts = json.loads(pico("list", "--json", folder=tmp_path))
    assert {f"picolm.{sort['name'].replace('-', '_')}s" for sort in sorts} == GROUPS.keys()


@pytest.mark.parametrize("group", GROUPS)
def test_each_is_listed_with_its_sentence_and_where_it_comes_from(group: str, tmp_path: Path):
    ((name, target),) = GROUPS[group].items()
    rows: list[dict[str, Any]] = json.loads(pico("list", group.removeprefix("picolm."), "--json", folder=tmp_path))
    (row,) = [row for row in rows if row["name"] == name]
    assert row["sentence"]
    assert row["origin"].startswith("pico_example.")
    assert target.partition(":")[0] in row["origin"]


def test_the_training_file_names_six_of_them(place: Path):
    run = open_run(place / "runs" / "example")
    assert run.log()["hidden_share"].between(0.02, 0.09).all()
    rates = run.log().set_index("step")["learning_rate"]
    assert rates[40] == pytest.approx(0.001 * (20 / (20 + 39 - 5)) ** 0.5)
    assert run.scores().query("evaluation == 'second_half' and step == 40")["n"].item() == 50
    assert read_layout(run.directory.checkpoint(40)).tensors["layers.0.swiglu.w_0"].tensor == "layers.0.swiglu.w_0.weight"
    assert run.identity["data"]["name"] == "copying 8 of 60 tokens"
    state = json.loads((run.directory.checkpoint(40) / "training_state" / "state.json").read_text())
    assert state["optimizer"]["groups"][0]["betas"] == [0.9, 0.99]


def test_the_analysis_file_names_two(place: Path):
    rows: pandas.DataFrame = open_run(place / "runs" / "example").rows("heads")
    assert set(rows["metric"]) == {"spectral_gap"}
    assert set(rows["component"]) == {"head_outputs"}
    assert sorted(rows["head"].unique()) == [0, 1]
    assert rows.query("data_type == 'weights'")["value"].between(0, 1).all()


def test_the_report_file_names_one(place: Path):
    assert "Last rows of example" in (place / "page.html").read_text()


def test_an_editor_knows_the_names_of_the_installed_package(place: Path):
    for kind in ("training", "analysis", "report"):
        schema = json.loads(pico("schema", kind, folder=place))
        jsonschema.validate(read_yaml(place / f"{kind}.yaml"), schema)


@pytest.mark.parametrize("reference", ["metric:spectral_gap", "inverse_sqrt", "data-source:copying"])
def test_each_can_be_checked_by_name(reference: str, tmp_path: Path):
    assert "0 broken" in pico("check", reference, "--fast", folder=tmp_path)
