"""`pico report`: a page for a person, figures for a paper, numbers for a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or a folder of runs.", metavar="RUN...", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: report/index.html in the run folder.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every chart here: SVG, PDF, PNG, and its numbers as CSV and JSON."),
    ] = None,
    style: Annotated[str, typer.Option(help="Size and type of the figures: `paper` or `slides`.")] = "paper",
    group_by: Annotated[
        str | None, typer.Option(help="What names a series when there are several runs: `run`, `variant` or `seed`.")
    ] = None,
    panel: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only these panels; `./mine.py:my_panel` is your own. Repeatable.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write one self-contained HTML page about one or several runs; it opens offline."""
    import webbrowser

    from picolm.cli.console import say, say_next
    from picolm.report.page import make_report
    from picolm.report.tables import find_runs

    written = make_report(find_runs(runs), out, panels=panel, group_by=group_by, figures=figures, style=style)
    typer.echo(str(written.page))
    if figures is not None:
        say(f"{len(written.figures)} files in {figures}")
    if open_page:
        webbrowser.open(written.page.resolve().as_uri())
        return
    say_next(f"open {written.page} in a browser, or repeat with --open")
