"""The page on metrics: complete, and its snippets run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picolm.analyze.components.contract import COMPONENTS
from picolm.analyze.config import AnalysisConfig, load_analysis
from picolm.analyze.engine import analyze_run
from picolm.analyze.metrics.contract import METRICS
from picolm.analyze.plan import plan_analysis
from picolm.base.config import parse_settings, parse_yaml
from picolm.records.rundir import RunDirectory

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "metrics.md"


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_every_metric_and_component_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for entry in [*METRICS.entries(), *COMPONENTS.entries()]:
        assert f"`{entry.name}" in page, entry.name
        assert entry.sentence, entry.name


def test_metric_and_component_of_ones_own_run_as_on_the_page(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(block("python", "def gap"), encoding="utf-8")
    Path("mine.yaml").write_text(block("yaml", "gates_and_units"), encoding="utf-8")
    rows = analyze_run(run, load_analysis("mine.yaml"))
    assert set(rows.metric) == {"per", "./mine.py:gap"}
    assert len(rows) == 2 * 2 * 3
    assert rows[rows.metric == "./mine.py:gap"].value.between(0, 1).all()
    again = Path("mine.py").read_text(encoding="utf-8").replace("1 - sigma_R[1]", "2 - sigma_R[1]")
    Path("mine.py").write_text(again, encoding="utf-8")
    changed = analyze_run(run, load_analysis("mine.yaml"))
    assert changed[changed.metric == "./mine.py:gap"].value.between(1, 2).all()


def test_analysis_file_on_the_page_can_be_planned() -> None:
    config = parse_settings(AnalysisConfig, parse_yaml(block("yaml", "analysis_name: dynamics"), "page"), "page")
    assert len(plan_analysis(config, [0, 500]).measurements) == 3 + 4 + 1 + 1
