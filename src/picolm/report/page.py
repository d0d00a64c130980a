"""Tables in, one HTML file out, with the tables as parquet beside it and the figures, if asked for, as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picolm.base.registry import Named, checked_options
from picolm.records import durable
from picolm.records.rundir import RunDirectory
from picolm.report.chosen import Chosen
from picolm.report.figures import write_figures, write_tables
from picolm.report.headline import headlines, notices, subtitle
from picolm.report.panels.contract import DEFAULT_PANELS, PANELS, SEVERAL_PANELS, STUDY_PANELS, Panel
from picolm.report.shell import Top, render_page
from picolm.report.spec import quick_charts
from picolm.report.study.page import visible_judgement
from picolm.report.tables import ReportData, StudyOfRuns, read_report_data
from picolm.study.judgement import Judgement


@dataclass(frozen=True)
class Written:
    """What a report left on disk."""

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


def write_report(runs: Sequence[RunDirectory], out: Path | None = None) -> Path:
    """Write the page of one or several runs with the usual panels; its path."""
    return make_report(runs, out).page


def make_report(
    runs: Sequence[RunDirectory] | Chosen,
    out: Path | None = None,
    *,
    panels: Sequence[Named | str] | None = None,
    group_by: str | None = None,
    title: str | None = None,
    figures: Path | None = None,
    style: str = "paper",
    reload_seconds: float | None = None,
) -> Written:
    """Write the page of runs or of a study's runs, its tables as parquet beside it, and figures if `figures` names a folder.

    `out`: the file; None: the place that `records` has for it. `reload_seconds`: how often the page reads itself again while
    it is open; None: never.
    """
    chosen = runs if isinstance(runs, Chosen) else Chosen(list(runs))
    data = read_chosen(chosen, group_by=group_by)
    with quick_charts():
        built = build_panels(data, usual_panels(data) if panels is None else panels)
    path = out if out is not None else chosen.page
    tables = write_tables(data, path)
    page = render_page(
        Top(title or page_title(data), subtitle(data), headlines=headlines(data), notices=notices(data)),
        built,
        layers=data.layers,
        tables=[f"{table.parent.name}/{table.name}" for table in tables],
        reload_seconds=reload_seconds,
    )
    durable.write_text(path, page)
    drawn: Sequence[Path] = [] if figures is None else write_figures(built, figures, style=style, layers=data.layer_count)
    return Written(path, tables, tuple(drawn))


def read_chosen(chosen: Chosen, *, group_by: str | None = None) -> ReportData:
    """The tables of what was chosen; of a study also what was found."""
    judgement = _shown(chosen.judgement())
    study = None
    if chosen.study is not None:
        study = StudyOfRuns(chosen.study.name if judgement is None else judgement.study, judgement)
    return read_report_data(chosen.runs, group_by=group_by, study=study)


def _shown(judgement: Judgement | None) -> Judgement | None:
    return None if judgement is None else visible_judgement(judgement)


def usual_panels(data: ReportData) -> Sequence[str]:
    """The panels of a page when none are named."""
    if data.study is not None:
        return STUDY_PANELS
    return DEFAULT_PANELS if data.single is not None else SEVERAL_PANELS


def build_panels(data: ReportData, panels: Sequence[Named | str]) -> list[Panel]:
    """The panels named, in order; each is told only the tables and its own options."""
    built = []
    for item in panels:
        named = Named.model_validate(item) if isinstance(item, str) else item
        function = PANELS.find(named.name)
        options = checked_options(function, named.options, f"panel {named.name}")
        built.append(function(data, **options))
    return built


def page_title(data: ReportData) -> str:
    """The run's or the study's name, or how many runs there are."""
    if data.study is not None:
        return f"Runs of {data.study.name}"
    return data.single.name if data.single is not None else f"{len(data.runs)} runs by {data.group_by}"
