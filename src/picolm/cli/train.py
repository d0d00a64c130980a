"""`pico train`: start a run, or continue it; the same command does both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="Training file (YAML).")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any setting.")] = None,
    fork_from: Annotated[
        str | None,
        typer.Option("--fork-from", metavar="RUN@STEP", help="Begin a new run from a checkpoint of another, with its state."),
    ] = None,
) -> None:
    """Train a model, or continue where the run stopped."""
    from picolm.cli.console import TrainingProgress, say, say_next
    from picolm.train.config import load_config, notes
    from picolm.train.fork import parse_fork
    from picolm.train.stop import STOPPED_EXIT_CODE
    from picolm.train.train import run_training

    loaded = load_config(config, settings or [])
    fork = None if fork_from is None else parse_fork(fork_from)
    for note in notes(loaded):
        say(f"note: {note}")
    with TrainingProgress(loaded.training.max_steps) as progress:
        outcome = run_training(loaded, progress, fork)
    if not outcome.complete:
        say(f"stopped at step {outcome.step} of {loaded.training.max_steps}; everything up to there is saved in {outcome.run}")
        say_next("repeat the same command to continue")
        raise typer.Exit(STOPPED_EXIT_CODE)
    say(f"run complete: {outcome.run}")
    say_next(f"pico report {outcome.run}")
