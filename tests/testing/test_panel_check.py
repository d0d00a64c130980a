"""The conformance check of report panels: everything registered passes, and each promise has a panel that breaks it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from picolm.report.panels.contract import PANELS, Facts, Figure, Figures, Missing, Panel
from picolm.report.tables import ReportData
from picolm.testing.checks import check_panel, complaints
from picolm.testing.checks.panel import PANEL_PROMISES
from picolm.testing.tiny import Workshop

from .broken import broken_promises, without_a_culprit


@pytest.mark.parametrize("name", [entry.name for entry in PANELS.entries()])
def test_every_registered_panel_keeps_its_promises(name: str, workshop: Workshop):
    assert complaints(check_panel(PANELS.find(name), run=workshop.run, processes=False)) == []


def test_no_registered_panel_needs_torch(workshop: Workshop):
    """The check does this in one process per panel; here all in one."""
    code = """
import sys
from pathlib import Path
from picolm.records.rundir import RunDirectory
from picolm.report.panels.contract import PANELS
from picolm.report.tables import read_report_data
data = read_report_data([RunDirectory(Path(sys.argv[1]))])
for entry in PANELS.entries():
    entry.object(data)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(workshop.run.path)], check=True, timeout=120)


def panel_of(*blocks: Any) -> Panel:
    return Panel("Numbers", "What there is.", "As counted.", blocks)


def facts(data: ReportData) -> Panel:
    """How many rows the log has: a panel to be spoilt."""
    return panel_of(Facts((("rows", str(len(data.log))),)))


def without_docstring(data: ReportData) -> Panel:
    return facts(data)


def untyped(data: ReportData, *, size=1) -> Panel:  # type: ignore[no-untyped-def]
    """Facts."""
    return facts(data)


def wrong_default(data: ReportData, *, size: int = "large") -> Panel:  # type: ignore[assignment]
    """Facts."""
    return facts(data)


def without_a_definition(data: ReportData) -> Panel:
    """Facts nobody explains."""
    return Panel("Numbers", "What there is.", "", (Facts((("a", "b"),)),))


def needs_a_log(data: ReportData) -> Panel:
    """The last loss, if there is a log at all."""
    return panel_of(Facts((("loss", str(data.log["loss"].iloc[-1])),)))


def vanishes(data: ReportData) -> Panel:
    """Nothing where there is nothing."""
    return panel_of(*([Facts((("rows", "1"),))] if len(data.log) else []))


def figure(data: ReportData, name: str, frame: Any = None) -> Figure:
    import altair

    rows = data.log[["step", "loss"]] if "loss" in data.log else data.log[["step"]]
    chart = altair.Chart(rows).mark_point().encode(x="step:Q")
    return Figure(name, "Steps", chart, rows if frame is None else frame)


def two_of_a_name(data: ReportData) -> Panel:
    """Two figures in one file."""
    return panel_of(Figures((figure(data, "steps"), figure(data, "steps"))))


def not_a_table(data: ReportData) -> Panel:
    """A figure over a list."""
    return panel_of(Figures((figure(data, "steps", [1, 2]),)))


def writes_markup(data: ReportData) -> Panel:
    """Names in bold, by hand."""
    import markupsafe

    return panel_of(Missing(markupsafe.Markup(f"<b>{data.runs[0].name}</b>")))


_COUNT = itertools.count()


def counts_its_calls(data: ReportData) -> Panel:
    """Another number each time."""
    return panel_of(Facts((("call", str(next(_COUNT))),)))


def sorts_the_log(data: ReportData) -> Panel:
    """Sorts where it lies."""
    data.log.sort_values("step", ascending=False, inplace=True)
    return facts(data)


def counts_with_torch(data: ReportData) -> Panel:
    """Adds up with a large library."""
    import torch

    return panel_of(Facts((("rows", str(int(torch.tensor(len(data.log))))),)))


CULPRITS = [
    (without_docstring, "it says in one sentence what it is"),
    (untyped, "its settings are keyword-only and typed"),
    (wrong_default, "its settings survive being written to YAML"),
    (without_a_definition, "it returns a Panel with a title, a sentence and a definition"),
    (needs_a_log, "it draws whatever a run has, and says what it lacks"),
    (vanishes, "it draws whatever a run has, and says what it lacks"),
    (two_of_a_name, "its figures render, each under a name of its own"),
    (not_a_table, "its figures render, each under a name of its own"),
    (writes_markup, "text from a run never becomes markup"),
    (counts_its_calls, "it draws the same twice and leaves the tables as they were"),
    (sorts_the_log, "it draws the same twice and leaves the tables as they were"),
]


@pytest.mark.parametrize(("function", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_panel_is_found_out(function: Callable[..., Any], promise: str, workshop: Workshop):
    assert promise in broken_promises(check_panel(function, run=workshop.run, processes=False))


MINE = """
from __future__ import annotations
from picolm.report.panels.contract import Facts, Panel

def counted(data):
    '''Adds up with a large library.'''
    import {library}
    return Panel("Numbers", "What there is.", "As counted.", (Facts((("rows", str(len(data.log))),)),))
"""


@pytest.mark.parametrize(("library", "verdict"), [("json", "holds"), ("torch", "does not hold")])
def test_a_panel_that_imports_torch_is_found_out(library: str, verdict: str, workshop: Workshop, tmp_path: Any):
    from picolm.base.registry import load_object

    (tmp_path / "mine.py").write_text(MINE.format(library=library))
    findings = check_panel(load_object(f"{tmp_path}/mine.py:counted"), run=workshop.run)
    assert [finding.verdict for finding in findings if finding.promise == "it needs no torch"] == [verdict], json.dumps(
        [finding.detail for finding in findings]
    )


def test_every_promise_has_a_panel_that_breaks_it():
    assert without_a_culprit(PANEL_PROMISES, [promise for _, promise in CULPRITS] + ["it needs no torch"]) == set()
