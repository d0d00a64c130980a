"""`pico new`: a project that runs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must be empty or not exist yet.", show_default=False)],
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text of your own to train on: files, folders or globs. Repeatable. Default: a built-in language."),
    ] = None,
    documents: Annotated[
        str,
        typer.Option(help="With --text: one document of a plain text file is the `file`, one of its `paragraphs` or `lines`."),
    ] = "paragraphs",
    from_run: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Start from the configuration and the data of an existing run.")
    ] = None,
    every_setting: Annotated[
        bool, typer.Option("--all", help="Write every setting into the training file, not only those one changes first.")
    ] = False,
) -> None:
    """Make a commented project to start from: training, analysis and study files, and a file for your own ideas."""
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.project.make import make_project, refuse_occupied, start_from_language, start_from_run, start_from_text

    if from_run is not None and text:
        raise PicoError("--from and --text are both given", "a project starts from a run or from text")
    refuse_occupied(folder)
    if from_run is not None:
        start = start_from_run(folder, from_run)
    elif text:
        start = start_from_text(folder, text, documents=documents, say=say)
    else:
        start = start_from_language(folder, say)
    for path in make_project(folder, start, every_setting=every_setting):
        typer.echo(str(path))
    here = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    say_next(f"{here}pico train training.yaml")
