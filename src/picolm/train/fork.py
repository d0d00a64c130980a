"""A run that begins where another one stood: same weights, optimiser and position in the data, any other settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.records.manifest import manifest_hash
from picolm.records.rundir import CheckpointFolder, RunDirectory, open_run_directory
from picolm.train.config import RunConfig


@dataclass(frozen=True)
class Fork:
    """A checkpoint of another run to begin from."""

    run: RunDirectory
    step: int

    @property
    def folder(self) -> Path:
        return self.run.checkpoint(self.step)

    def facts(self) -> dict[str, Any]:
        """What `run.json` says about the origin of a forked run."""
        return {"run": self.run.name, "step": self.step, "manifest": manifest_hash(self.folder)}


def parse_fork(text: str) -> Fork:
    """The checkpoint that `RUN@STEP` names; PicoError if it is not there or cannot be continued from."""
    path, at, number = text.rpartition("@")
    if not at or not number.isdecimal():
        raise PicoError(f"--fork-from {text}: not of the form RUN@STEP", "for example --fork-from runs/demo@256")
    run, step = open_run_directory(path), int(number)
    if step not in run.steps():
        listed = ", ".join(str(known) for known in run.steps()) or "none"
        raise PicoError(f"--fork-from {text}: {path} has no checkpoint of step {step}", f"its checkpoints: {listed}")
    fork = Fork(run, step)
    if not CheckpointFolder(fork.folder).training_state.is_dir():
        raise PicoError(
            f"--fork-from {text}: this checkpoint has no training state any more",
            f"its weights alone can begin a new run: --set model.init_from={fork.folder}",
        )
    return fork


def check_fork(directory: RunDirectory, config: RunConfig[Any], fork: Fork | None) -> None:
    """PicoError if `fork` cannot begin this run, or contradicts what the run began from."""
    if fork is not None and fork.step >= config.training.max_steps:
        raise PicoError(
            f"--fork-from: step {fork.step} is not before training.max_steps = {config.training.max_steps}",
            f"--set training.max_steps=N with N > {fork.step}",
        )
    if not directory.identity_file.is_file():
        return
    known = directory.identity().get("forked_from")
    if fork is not None and known != fork.facts():
        began = "from its own seeds" if known is None else f"from {known['run']}@{known['step']}"
        raise PicoError(
            f"the run {directory.path} exists and began {began}",
            "leave --fork-from out to continue it, or choose another name: --set checkpointing.run_name=NAME",
        )
    if fork is None and known is not None and not directory.steps():
        raise PicoError(
            f"the run {directory.path} was forked and has no checkpoint yet",
            f"repeat the command with --fork-from {known['run']}@{known['step']}",
        )
