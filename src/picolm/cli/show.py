"""`pico show`: what a run is, how far it is, how healthy; text only, for people on a login node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def show(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what a run is, how far it is and whether it is healthy."""
    import json

    from picolm.cli.console import say_next
    from picolm.records.rundir import open_run_directory
    from picolm.report import health
    from picolm.report.tables import read_run

    tables = read_run(open_run_directory(run))
    if as_json:
        typer.echo(json.dumps(health.summary(tables), indent=1, ensure_ascii=False))
        return
    for line in health.sheet(tables):
        typer.echo(line)
    say_next(f"pico report {run}" if len(tables.rows) else f"pico analyze {run} <analysis.yaml>")
