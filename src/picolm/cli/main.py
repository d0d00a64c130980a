"""The command `pico`: one file per verb beside this one. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from picolm.cli import analyze, capture, data, demo, evaluate, export, hub, plan, report, runs, show, train

app = typer.Typer(
    name="pico",
    help="Pico: a sandbox for hypothesis-driven research on small language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pico {version('picolm')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Pico: a sandbox for hypothesis-driven research on small language models."""


START, LOOK, SHARE = "Start", "Look inside", "Leave and share"
app.command(rich_help_panel=START)(demo.demo)
app.command(rich_help_panel=START)(plan.plan)
app.command(rich_help_panel=START)(train.train)
app.add_typer(data.app, name="data", rich_help_panel=START)
app.command(rich_help_panel=LOOK)(runs.runs)
app.command(rich_help_panel=LOOK)(show.show)
app.command(rich_help_panel=LOOK)(evaluate.evaluate)
app.command(rich_help_panel=LOOK)(capture.capture)
app.command(rich_help_panel=LOOK)(analyze.analyze)
app.command(rich_help_panel=LOOK)(report.report)
app.command(rich_help_panel=SHARE)(export.export)
app.add_typer(hub.app, name="hub", rich_help_panel=SHARE)


def main() -> None:
    """Run the command line; a PicoError becomes `error:` and `hint:` on stderr and exit code 2."""
    from picolm.base.errors import PicoError

    try:
        app()
    except PicoError as error:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print(f"[bold red]error:[/] {escape(error.message)}")
        if error.hint:
            console.print(f"[bold]hint:[/] {escape(error.hint)}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
