"""The nine sorts from files of one's own, without packaging: each is named as `./file.py:object`, used, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from picolm.cli.main import app
from picolm.face import open_run
from picolm.testing.findings import complaints
from picolm.testing.sorts import SORTS, find_object
from picolm.testing.tiny import Workshop

PACKAGE = Path(__file__).parents[2] / "examples" / "plugin_package"
NINE = {
    "squared_relu": "./architecture.py:SQUARED_RELU",
    "token_dropout": "./training_method.py:TokenDropout",
    "lion": "./optimizer.py:lion",
    "inverse_sqrt": "./schedule.py:inverse_sqrt",
    "copying": "./data_source.py:Copying",
    "second_half": "./evaluation.py:SecondHalf",
    "head_outputs": "./component.py:head_outputs",
    "spectral_gap": "./metric.py:spectral_gap",
    "last_rows": "./panel.py:last_rows",
}
"""Name as an installed package -> the same from a file."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules as loose files, and three YAML files that name them; decorators taken off: none is needed."""
    folder = tmp_path_factory.mktemp("loose")
    for module in (PACKAGE / "src" / "pico_example").glob("*.py"):
        lines = module.read_text().splitlines(keepends=True)
        (folder / module.name).write_text("".join(line for line in lines if not line.startswith("@")))
    for name in ("training.yaml", "analysis.yaml", "report.yaml"):
        text = (PACKAGE / name).read_text()
        for short, reference in NINE.items():
            text = text.replace(f"name: {short}", f"name: {reference}").replace(
                f"model_type: {short}", f"model_type: {reference}"
            )
        (folder / name).write_text(text.replace("[weights, gradients]", "weights"))
    return folder


def pico(*words: str) -> None:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_nine_files_are_used_from_yaml(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    pico("train", "training.yaml")
    pico("analyze", "runs/example", "analysis.yaml")
    pico("report", "runs/example", "--config", "report.yaml", "--out", "page.html")
    run = open_run(place / "runs" / "example")
    assert run.log()["hidden_share"].notna().all()
    assert len(run.scores()) > 0
    assert run.rows("heads")["value"].notna().all()
    assert "Last rows of example" in (place / "page.html").read_text()


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name)
def test_each_file_keeps_the_promises_of_its_sort(sort, place: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    (reference,) = [each for each in NINE.values() if each.startswith(f"./{sort.name.replace('-', '_')}.py")]
    found = find_object(reference)
    assert found.sort == sort
    more = {
        "training-method": {"workshop": workshop, "processes": False},
        "evaluation": {"workshop": workshop},
        "component": {"run": workshop.run},
        "panel": {"run": workshop.run, "processes": False},
    }
    assert complaints(sort.check(found.object, **more.get(sort.name, {}))) == []


def test_the_package_is_complete():
    assert {path.stem for path in (PACKAGE / "src" / "pico_example").glob("[!_]*.py")} == {
        sort.name.replace("-", "_") for sort in SORTS
    }
