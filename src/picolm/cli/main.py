"""The command `pico`: one file per verb beside this one. A verb's file is imported when the verb is called, not before."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Verb(NamedTuple):
    """Where a verb stands in the help, and its sentence there: the first of its docstring."""

    panel: str
    sentence: str


START, LOOK, SHARE, EXTEND = "Start", "Look inside", "Leave and share", "Extend"
VERBS = {
    "demo": Verb(START, "Make data, train, evaluate, analyse and report: minutes on a laptop CPU."),
    "new": Verb(
        START, "Make a commented project to start from: training, analysis and study files, and a file for your own ideas."
    ),
    "data": Verb(
        START, "Text, JSON lines, parquet or a Hub dataset to token shards; a synthetic language; the batch of a step; hashes."
    ),
    "plan": Verb(START, "Say what a run will cost: parameters, operations, memory, disk and time."),
    "train": Verb(START, "Train a model, or continue where the run stopped."),
    "runs": Verb(LOOK, "List the runs of a folder, or re-hash every file of every checkpoint of one run."),
    "show": Verb(LOOK, "Say what a run is, how far it is and whether it is healthy; draw its losses as text."),
    "evaluate": Verb(LOOK, "Score a run's checkpoints (the scores are kept in the run) or any model (they are printed)."),
    "capture": Verb(
        LOOK, "Look into a series of somebody else's checkpoints: activations and gradients on your text, weights where they are."
    ),
    "analyze": Verb(LOOK, "Apply metrics to components of a run's checkpoints; only what is missing is computed."),
    "report": Verb(LOOK, "Write one self-contained HTML page about one or several runs; it opens offline."),
    "study": Verb(LOOK, "Declared hypotheses over variants x seeds: lock, plan, run, judge, report."),
    "export": Verb(SHARE, "Write a checkpoint for other tools, open it again, and print the largest difference in logits."),
    "hub": Verb(SHARE, "Publish runs on the Hugging Face Hub, take them back, and prove a published series."),
    "list": Verb(EXTEND, "Say what can be named in YAML: each name with its sentence, its options and where it comes from."),
    "check": Verb(EXTEND, "Examine an extension: what its contract promises, which of it holds, and why it matters."),
    "schema": Verb(
        EXTEND,
        "Write the JSON schema of a file, for an editor that completes and checks it: training, analysis, study or report.",
    ),
}
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def load_verb(name: str) -> Any:
    """The command of a verb: the group `app` of its file, or its function of the same name."""
    module = importlib.import_module(f"picolm.cli.{name}")
    verb = vars(module).get("app")
    if verb is None:
        verb = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        verb.command(name, context_settings=SETTINGS)(getattr(module, name))
    command = get_command(verb)
    command.name = name
    return command


class Verbs(TyperGroup):
    """All verbs for the help by their sentences alone; the one that is called for real."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        if cmd_name == ctx.meta.get("picolm.called"):
            return load_verb(cmd_name)
        return TyperCommand(cmd_name, help=VERBS[cmd_name].sentence, rich_help_panel=VERBS[cmd_name].panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta["picolm.called"] = args[0]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="pico",
    cls=Verbs,
    help="Pico: a sandbox for hypothesis-driven research on small language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=SETTINGS,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pico {version('picolm')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Pico: a sandbox for hypothesis-driven research on small language models."""


def _explain(message: str, hint: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        console.print(f"[bold]hint:[/] {escape(hint)}")


def main() -> None:
    """Run the command line; a PicoError becomes `error:` and `hint:` on stderr and exit code 2."""
    from picolm.base.errors import PicoError

    try:
        app()
    except PicoError as error:
        _explain(error.message, error.hint)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
