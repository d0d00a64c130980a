"""Train a configuration to its end: build, loop, say what happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.train.config import RunConfig
from picolm.train.loop import train
from picolm.train.run import Observer
from picolm.train.setup import build_training
from picolm.train.stop import stop_on_signals


@dataclass(frozen=True)
class Outcome:
    """How a call of `run_training` ended."""

    run: Path
    step: int
    complete: bool


def run_training(config: RunConfig[Any], observer: Observer) -> Outcome:
    """Start or continue the run that `config` describes. A signal ends it early, saved."""
    training = build_training(config, observer)
    run = training.parts.directory.path
    if training.progress.step:
        observer.say(f"continuing {run} from step {training.progress.step}")
    observer.advance(training.progress.step)
    with stop_on_signals(observer.say) as stop:
        complete = train(training.parts, training.progress, training.checkpointer, observer, stop)
    return Outcome(run, training.progress.step, complete)
