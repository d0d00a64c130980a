"""`pico report`: a page for a person, figures for a paper, numbers for a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, a folder of runs, or a study.", metavar="RUN...", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: report/index.html in the first run folder, runs.html in a study.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every chart here: SVG, PDF, PNG, and its numbers as CSV and JSON."),
    ] = None,
    style: Annotated[str | None, typer.Option(help="Size and type of the figures: `paper` (the usual) or `slides`.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="What names a series: `run`, `variant`, `seed`, or a setting such as `model.d_model`.")
    ] = None,
    panel: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these panels; `./mine.py:my_panel` is your own. Repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with `panels`, `group_by`, `title`, `style`; options given here win.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Write the page again whenever the runs have something new.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks with --watch.", min=1.0)] = 10.0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write one self-contained HTML page about one or several runs; it opens offline."""
    import webbrowser

    from picolm.cli.console import say, say_next
    from picolm.report.chosen import find_chosen
    from picolm.report.config import load_report_config
    from picolm.report.page import make_report
    from picolm.report.watch import watch_runs

    found = find_chosen(runs)
    settings = load_report_config(config)

    def write(live: bool) -> Path:
        written = make_report(
            found,
            out,
            panels=panel or settings.panels,
            group_by=group_by or settings.group_by,
            title=settings.title,
            figures=figures,
            style=style or settings.style,
            reload_seconds=every if live else None,
        )
        if figures is not None:
            say(f"{len(written.figures)} files in {figures}")
        return written.page

    if open_page or not watch:
        page = write(watch)
    if open_page:
        webbrowser.open(page.resolve().as_uri())
    if watch:
        say("watching; Ctrl-C ends it")
        page = watch_runs(found.runs, write, every_seconds=every, say=say)
    typer.echo(str(page))
    if not open_page:
        say_next(f"open {page} in a browser, or repeat with --open")
