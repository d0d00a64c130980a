"""`pico runs`: what exists in a folder of runs; `pico runs verify RUN`: is every file what its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] | verify RUN", help="A folder of runs (default: runs), or `verify` and a run.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """List the runs of a folder, or re-hash every file of every checkpoint of one run."""
    from picolm.base.errors import PicoError

    given = words or ["runs"]
    if given[0] == "verify" and len(given) == 2:
        _verify(Path(given[1]), as_json=as_json)
    elif len(given) == 1 and given[0] != "verify":
        _list(Path(given[0]), as_json=as_json)
    else:
        raise PicoError(f"pico runs {' '.join(given)}: not understood", "`pico runs [DIR]`, or `pico runs verify RUN`")


def _list(folder: Path, *, as_json: bool) -> None:
    import json

    from picolm.base.errors import PicoError
    from picolm.cli.console import say_next
    from picolm.records.rundir import list_runs
    from picolm.report.inventory import inventory

    found = list_runs(folder)
    if not found:
        raise PicoError(f"there are no runs in {folder}", "`pico train <config>` makes one; name another folder to look there")
    rows = inventory(found)
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    _print_table(rows)
    say_next(f"pico show {found[0].path}")


def _print_table(rows: list[dict[str, Any]]) -> None:
    names = ["name", "variant", "seed", "updates", "tokens", "loss", "checkpoints", "problem"]
    cells = [[name.upper() for name in names], *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _verify(path: Path, *, as_json: bool) -> None:
    import json

    from picolm.cli.console import say
    from picolm.records.pulled import read_pulled
    from picolm.records.rundir import open_run_directory
    from picolm.report.inventory import find_run_damage

    run = open_run_directory(path)
    checked = find_run_damage(run)
    damaged = [problem for problems in checked.values() for problem in problems]
    if as_json:
        typer.echo(json.dumps({str(step): problems for step, problems in checked.items()}, indent=1, ensure_ascii=False))
    else:
        for step, problems in checked.items():
            pulled = read_pulled(run.checkpoint(step))
            there = "every file is what its manifest says" + (f"; {pulled.summary}" if pulled is not None else "")
            typer.echo(f"step {step}: " + ("; ".join(problems) or there))
    if damaged:
        say("restore the named files from a copy, or delete those checkpoints: the run then continues from an earlier one")
        raise typer.Exit(1)
    say(f"{len(checked)} checkpoints verified")
