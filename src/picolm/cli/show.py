"""`pico show`: what a run is, how far it is, how healthy; text only, for people on a login node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also draw this metric of the weights. Repeatable.")
    ] = None,
    charts: Annotated[bool, typer.Option(help="Draw the losses as text.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what a run is, how far it is and whether it is healthy; draw its losses as text."""
    import importlib.util
    import json
    import shutil
    import sys

    from picolm.cli.console import say, say_next
    from picolm.records.rundir import open_run_directory
    from picolm.report import health
    from picolm.report.tables import read_run
    from picolm.report.terminal import text_charts

    tables = read_run(open_run_directory(run))
    if as_json:
        typer.echo(json.dumps(health.summary(tables), indent=1, ensure_ascii=False))
        return
    for line in health.sheet(tables):
        typer.echo(line)
    if (charts or metric) and importlib.util.find_spec("uniplot") is None:
        say("text charts are drawn by uniplot, which is not installed here: pip install uniplot")
    elif charts or metric:
        width = min(shutil.get_terminal_size().columns, 110)
        for block in text_charts(tables, metric or [], width=width, color=sys.stdout.isatty()):
            typer.echo("\n" + block)
    say_next(f"pico report {run}" if len(tables.rows) else f"pico analyze {run} <analysis.yaml>")
