from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import picolm.charts
from picolm.records.rundir import RunDirectory
from picolm.report.definitions import describe_metric, metric_name
from picolm.report.page import make_report
from picolm.report.panels.contract import PANELS

GUIDE = Path(__file__).parents[2] / "docs" / "guides"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_gallery", GUIDE / "charts" / "draw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_shows_every_chart_function(gallery: ModuleType):
    functions = set(picolm.charts.__all__) - {"Reference", "Span", "over_runs", "save_chart", "step_pairs", "styled"}
    assert set(gallery.gallery()) == functions


def test_the_gallery_in_the_documentation_is_drawn_by_its_script(gallery: ModuleType, tmp_path: Path):
    drawn = {path.name for path in gallery.draw(tmp_path)}
    assert drawn == {path.name for path in (GUIDE / "charts").iterdir() if path.suffix in (".svg", ".md")}
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == (GUIDE / "charts" / "README.md").read_text(encoding="utf-8")


def test_the_guide_names_every_panel():
    text = (GUIDE / "report.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    assert named == {entry.name for entry in PANELS.entries()}


def test_the_panel_of_the_guide_works(example_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"```python\n(# mine\.py\n.*?)```", (GUIDE / "report.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(blocks[0], encoding="utf-8")
    page = make_report([example_run], tmp_path / "p.html", panels=["./mine.py:clipping"]).page
    assert "How strongly the gradient is cut back." in page.read_text(encoding="utf-8")


def test_the_charts_of_a_notebook_can_be_styled_and_saved(gallery: ModuleType, tmp_path: Path):
    chart = gallery.gallery()["metric_heatmap"]
    assert picolm.charts.styled(chart, "slides").width == 860
    assert picolm.charts.save_chart(chart, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "words"), [("per", "singular-value shares"), ("gini", "magnitudes"), ("cka", "kernel alignment")]
)
def test_a_metric_is_defined_in_the_words_of_its_own_code(name: str, words: str):
    assert words in describe_metric(name)


def test_a_metric_from_elsewhere_is_named_as_such():
    assert "outside this package" in describe_metric("my_gap")
    assert metric_name("minibatch_cka") == "Minibatch CKA"
