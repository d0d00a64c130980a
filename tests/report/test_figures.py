from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas
import pytest

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.report.figures import inert_csv, write_figures
from picolm.report.page import build_panels
from picolm.report.tables import read_report_data


@pytest.fixture(scope="module")
def figure_folder(example_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    panels = build_panels(read_report_data([example_run]), ["loss"])
    paths = write_figures(panels, folder, style="paper", layers=4)
    assert sorted(paths) == sorted(folder.iterdir())
    return folder


def test_each_figure_is_written_as_drawing_and_as_numbers(figure_folder: Path):
    assert (figure_folder / "demo-loss.pdf").read_bytes().startswith(b"%PDF")
    assert (figure_folder / "demo-loss.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(figure_folder / "demo-loss.svg").getroot().tag.endswith("svg")


def test_figures_have_literal_colours_and_the_width_of_a_column(figure_folder: Path):
    text = (figure_folder / "demo-loss.svg").read_text(encoding="utf-8")
    assert "var(--" not in text
    assert "#0072b2" in text


def test_numbers_are_whole_and_exact(figure_folder: Path, example_run: RunDirectory):
    from picolm.records.trainlog import read_rows

    rows = json.loads((figure_folder / "demo-loss.json").read_text(encoding="utf-8"))
    training = [row["loss"] for row in rows if row["curve"] == "training"]
    assert training == [row["loss"] for row in read_rows(example_run.log_file)]
    with (figure_folder / "demo-loss.csv").open(encoding="utf-8") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file) if row["curve"] == "training"] == training


def test_text_in_csv_is_never_a_formula():
    frame = pandas.DataFrame({"=name": ["=1+1", "@x", "plain", "-2"], "value": [-1.0, 2.0, 3.0, 4.0]})
    rows = list(csv.reader(io.StringIO(inert_csv(frame))))
    assert rows[0][0] == "'=name"
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'@x", "plain", "'-2"]
    assert rows[1][1] == "-1.0"


def test_an_unknown_style_is_refused(tmp_path: Path):
    with pytest.raises(PicoError, match="--style poster"):
        write_figures([], tmp_path, style="poster")


def test_planted_text_is_inert_in_drawings(tmp_path: Path):
    from picolm.report.charts import scores_over_time
    from picolm.report.panels.contract import Figure, Figures, Panel

    payload = "</text><script>alert(1)</script>\"'&"
    frame = pandas.DataFrame(
        {
            "step": [1, 2],
            "tokens": [1.0, 2.0],
            "group": [payload, "b"],
            "value": [0.1, 0.2],
            "standard_error": [None, None],
            "baseline": None,
        }
    )
    figure = Figure(payload, payload, scores_over_time(frame, measure=payload, title=payload), frame)
    paths = write_figures([Panel("p", "s", "d", (Figures((figure,)),))], tmp_path)
    assert all(path.parent == tmp_path for path in paths)
    root = ElementTree.parse(next(path for path in paths if path.suffix == ".svg")).getroot()
    assert not any(element.tag.endswith("script") for element in root.iter())
    assert any(payload[:20] in (element.text or "") for element in root.iter())
