"""What a report panel promises: it draws what there is, says what is missing, and lets no text become markup."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas

from picolm.records.rundir import RunDirectory
from picolm.report.panels.contract import PANELS, Facts, Missing, Panel, Table
from picolm.report.shell import Top, render_page
from picolm.report.spec import quick_charts
from picolm.report.tables import ReportData, read_report_data
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone
from picolm.testing.tiny import Workshop

PANEL_PROMISES = CheckList("panel", *COMMON)
_promise = PANEL_PROMISES.promise
NEEDS_NO_TORCH = "it needs no torch"
FRAMES = ("log", "scores", "rows", "checkpoints", "samples")
KEYS = ("data_type", "split", "options", "partner")
"""Columns whose text is one of few words, or JSON."""
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>'
IMPORTS_TORCH = """
import json, sys
from picolm.base.registry import load_object
from picolm.records.rundir import RunDirectory
from picolm.report.panels.contract import PANELS
from picolm.report.shell import Top, render_page
from picolm.report.spec import quick_charts
from picolm.report.tables import read_report_data
function = load_object(sys.argv[1])
by_file = "torch" in sys.modules
function(read_report_data([RunDirectory(__import__("pathlib").Path(sys.argv[2]))]), **json.loads(sys.argv[3]))
print(json.dumps({"file": by_file, "call": "torch" in sys.modules}))
"""


@dataclass
class PanelSubject:
    """A panel with the options and the run it is examined with."""

    thing: Callable[..., Panel]
    options: Mapping[str, Any]
    run: RunDirectory
    folder: Path

    def data(self) -> ReportData:
        """The tables of a finished run."""
        return read_report_data([self.run])

    def empty_run(self, name: str = "empty") -> RunDirectory:
        """A run that has begun and nothing else."""
        run = RunDirectory(self.folder / name)
        if not run.identity_file.is_file():
            run.write_identity({"name": name, "seed": 1})
        return run

    def draw(self, data: ReportData) -> Panel:
        """The panel of some tables."""
        with quick_charts():
            return self.thing(data, **self.options)

    def cases(self) -> Iterator[tuple[str, ReportData]]:
        """Every state in which a report finds its tables."""
        whole = self.data()
        yield "a finished run", whole
        yield "a run that has only begun", read_report_data([self.empty_run()])
        yield "two runs", read_report_data([self.run, self.run])
        yield "a finished run and one that has only begun", read_report_data([self.run, self.empty_run()])
        for name in FRAMES:
            yield f"a run without {name}", _without(whole, name)


def check_panel(
    function: Callable[..., Panel],
    *,
    options: Mapping[str, Any] | None = None,
    run: RunDirectory | None = None,
    processes: bool = True,
) -> list[Finding]:
    """What a report panel keeps of its promises.

    `run`: a finished run that it has something to show of. `processes`: whether it is also drawn in a process of its own.
    """
    chosen = dict(options or {})
    leave_out = () if processes else (NEEDS_NO_TORCH,)
    with tempfile.TemporaryDirectory() as folder:

        def subject() -> PanelSubject:
            options_ = filled(function, chosen, "panel")
            return PanelSubject(function, options_, run or Workshop(Path(folder)).run, Path(folder))

        return examine(PANEL_PROMISES, function, chosen, subject, leave_out=leave_out)


@_promise(
    "it returns a Panel with a title, a sentence and a definition",
    why="the page puts them above the figures: a reader who was not there must understand what is shown.",
)
def _panel(subject: PanelSubject) -> str:
    panel = subject.draw(subject.data())
    if not isinstance(panel, Panel):
        raise Broken(f"it returns a {type(panel).__name__}, not a Panel")
    if empty := [name for name in ("title", "sentence", "definition") if not str(getattr(panel, name)).strip()]:
        raise Broken(f"its {' and '.join(empty)} is empty")
    return f"{panel.title}: {len(panel.figures())} figure(s), {len(panel.blocks)} block(s)"


@_promise(
    "it draws whatever a run has, and says what it lacks",
    why="reports are made of runs that are still going on, and of those that stopped early: one panel that fails takes the whole "
    "page with it.",
)
def _every_case(subject: PanelSubject) -> str:
    missing = []
    for name, data in subject.cases():
        panel = subject.draw(data)
        if not panel.blocks:
            raise Broken(f"for {name} it shows nothing and does not say why: return a Missing block")
        if any(isinstance(block, Missing) and not block.text.strip() for block in panel.blocks):
            raise Broken(f"for {name} it says that something is missing, but not what")
        if panel.is_missing:
            missing.append(name)
    return f"nothing to show of: {', '.join(missing) or 'none'}"


@_promise(
    "its figures render, each under a name of its own",
    why="the name is the file of the exported figure; a chart that cannot be written as JSON breaks the page.",
)
def _figures(subject: PanelSubject) -> str:
    drawn: list[str] = []
    for name, data in islice(subject.cases(), 3):
        panel = subject.draw(data)
        figures = panel.figures()
        names = [figure.name for figure in figures]
        if len(set(names)) != len(names):
            raise Broken(f"for {name} two figures have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        for figure in figures:
            if not isinstance(figure.data, pandas.DataFrame):
                raise Broken(f"the data of figure {figure.name} is a {type(figure.data).__name__}, not a DataFrame")
            if not figure.title.strip():
                raise Broken(f"figure {figure.name} has no title")
        _page(data, panel)
        drawn.extend(names)
    return f"{len(set(drawn))} figure(s)"


@_promise(
    "text from a run never becomes markup",
    why="names of runs, parts and options come from files; a page that executes them runs somebody else's script.",
)
def _escapes(subject: PanelSubject) -> None:
    data = _hostile(subject.data())
    page = _page(data, subject.draw(data))
    for text in ('<script>alert("1")', "<img src=x onerror", "onerror=alert(2)>"):
        if text in page:
            raise Broken(f"the page holds {text!r} as it was: leave the escaping to the page, use no Markup")


@_promise(
    "it draws the same twice and leaves the tables as they were",
    why="panels share the tables; one that sorts or fills them changes what the next one shows.",
)
def _pure(subject: PanelSubject) -> None:
    data, untouched = subject.data(), subject.data()
    with left_alone("a figure needs no randomness"):
        first, second = subject.draw(data), subject.draw(data)
    for name in FRAMES:
        if not getattr(data, name).equals(getattr(untouched, name)):
            raise Broken(f"the table `{name}` is another after the panel was drawn: work on a copy")
    pages = [_shown(panel) for panel in (first, second)]
    if pages[0] != pages[1]:
        raise Broken("drawn twice it shows different text or numbers")


@_promise(
    NEEDS_NO_TORCH,
    why="a report opens in a second, also where torch is not installed; importing torch takes several.",
)
def _without_torch(subject: PanelSubject) -> None:
    file = inspect.getsourcefile(subject.thing)
    if file is None or "<locals>" in subject.thing.__qualname__:
        raise NotApplicable("it does not stand in a file of its own")
    arguments = [f"{file}:{subject.thing.__qualname__}", str(subject.run.path), json.dumps(dict(subject.options), default=list)]
    if any(entry.object is subject.thing for entry in PANELS.entries()):
        arguments[0] = f"{subject.thing.__module__}:{subject.thing.__qualname__}"
    command = [sys.executable, "-c", IMPORTS_TORCH, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    if result.returncode != 0:
        raise Broken(f"in a process of its own it fails: {result.stderr.strip().splitlines()[-1]}")
    imported = json.loads(result.stdout)
    if imported["file"]:
        raise NotApplicable(
            "its file imports torch, for other things it seems: a panel in a file of its own makes reports open faster"
        )
    if imported["call"]:
        raise Broken("drawing it imports torch")


def _page(data: ReportData, panel: Panel) -> str:
    return render_page(Top("check", "one panel"), [panel], layers=data.layers)


def _without(data: ReportData, name: str) -> ReportData:
    """The tables with one of them empty."""
    return _with(data, lambda frame: frame.iloc[:0], [name])


def _with(data: ReportData, change: Callable[[pandas.DataFrame], pandas.DataFrame], names: Sequence[str]) -> ReportData:
    """The tables with some of them changed, of each run and of all."""

    def changed(holder: Any) -> dict[str, Any]:
        return {name: change(getattr(holder, name)) for name in names}

    return replace(data, runs=tuple(replace(run, **changed(run)) for run in data.runs), **changed(data))


def _hostile(data: ReportData) -> ReportData:
    """The tables with markup wherever text stands."""

    def spoilt(frame: pandas.DataFrame) -> pandas.DataFrame:
        texts = [name for name in frame.columns if not pandas.api.types.is_numeric_dtype(frame[name]) and name not in KEYS]
        return frame.assign(**dict.fromkeys(texts, HOSTILE))

    config = f"model:\n  d_model: '{HOSTILE}'\n"
    runs = tuple(replace(run, name=HOSTILE, variant=HOSTILE, config=config) for run in data.runs)
    return _with(replace(data, runs=runs), spoilt, FRAMES)


def _shown(panel: Panel) -> list[str]:
    """Text and numbers of a panel."""
    shown = [panel.title, panel.sentence, panel.definition]
    for block in panel.blocks:
        shown.append(repr(block) if isinstance(block, Facts | Table | Missing) else type(block).__name__)
    return shown + [f"{figure.name}\n{figure.data.to_csv()}" for figure in panel.figures()]
