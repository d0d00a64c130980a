"""Tiny runs of one training method: whole ones on disk, interrupted ones, and single steps in memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.data.sources import open_prepared
from picolm.evaluate.undisturbed import random_streams_kept
from picolm.model.contract import LanguageModel, load_model
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.testing.checks import in_a_file
from picolm.testing.tiny import Workshop, merged
from picolm.train.loop import update
from picolm.train.methods.contract import METHODS, StepResult
from picolm.train.resume import restore
from picolm.train.run import Parts, Progress, Silence, step_batch
from picolm.train.setup import build_training
from picolm.train.train import default_dtype_of, run_training

TIMES = {"tokens_per_second", "step_seconds", "paused_seconds", "mfu"}
"""Columns of the log that a clock fills."""


class Halted(Exception):
    """The run is interrupted."""


class Halting(Silence):
    """Interrupts the run once `step` updates are made."""

    def __init__(self, step: int) -> None:
        self._step = step

    def advance(self, step: int) -> None:
        if step == self._step:
            raise Halted


@dataclass(frozen=True)
class Trained:
    """A finished tiny run."""

    directory: RunDirectory
    config: Any

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of its log."""
        return trainlog.read_rows(self.directory.log_file)


@dataclass
class Steps:
    """Single updates in memory, outside the loop: nothing is written."""

    parts: Parts
    series: list[str] = field(default_factory=list)
    """Names of the series seen, in the order they came."""
    made: int = 0

    def take(self, count: int) -> list[StepResult]:
        """What the method reports of the next `count` updates."""
        results = []
        with default_dtype_of(self.parts.config.training.fabric.precision):
            for step in range(self.made, self.made + count):
                batch = step_batch(self.parts, step, self.parts.loader.batch_of_step(step))
                result = self.parts.method.forward_backward(self.parts.fabric_model, batch, self.parts.fabric)
                update(self.parts, step, applied=True)
                self.series += [name for name in result.series if name not in self.series]
                results.append(result)
        self.made += count
        return results


@dataclass
class MethodSubject:
    """A training method with the options it is examined with."""

    thing: type[Any]
    options: Mapping[str, Any]
    workshop: Workshop
    folder: Path
    interruptions: Sequence[int] = (3, 6)
    """Updates after which the interrupted run is interrupted: in the middle and before the end."""
    _runs: dict[str, Trained] = field(default_factory=dict)

    @cached_property
    def reference(self) -> str:
        """How a training file in this process names the method."""
        return in_a_file.named_here(self.thing, METHODS)

    def content(self, name: str, **changes: Any) -> dict[str, Any]:
        """The content of a training file that uses the method."""
        mine = {
            "training": {"method": {"name": self.reference, **self.options}},
            "checkpointing": {
                "runs_dir": str(self.folder / "runs"),
                "steps": [0, 1, 4, 7, 8],
                "learning_dynamics": {"layer_suffixes": ["*"]},
            },
        }
        return self.workshop.content(name, **merged(mine, changes))

    def steps(self, name: str, **changes: Any) -> Steps:
        """The objects of a run that is not begun."""
        config = self._config(self.content(name, **changes), name)
        parts = build_training(config, RunDirectory(self.folder / "runs" / name)).parts
        parts.method.start(0, parts.model, parts.optimizer)
        return Steps(parts)

    def run(self, name: str, *, interrupt_at: Sequence[int] = (), foreign_seed: int = 0, **changes: Any) -> Trained:
        """A finished run of eight updates, the same again if it was asked for before.

        `interrupt_at`: it ends after these updates and is continued. `foreign_seed`: what Python's and NumPy's streams
        begin with, which must not matter.
        """
        if name not in self._runs:
            self._runs[name] = self._train(self.content(name, **changes), name, interrupt_at, foreign_seed)
        return self._runs[name]

    def plain_run(self, name: str) -> Trained:
        """The same run with plain training."""
        content = self.content(name)
        content["training"] = {**content["training"], "method": "plain"}
        return self._train(content, name, (), 0)

    def run_in_processes(self, name: str, count: int, **changes: Any) -> Trained:
        """The same in `count` processes, through the command line."""
        reference = in_a_file.named_anywhere(self.thing, METHODS)
        content = self.content(name, **changes)
        content["training"] = {**content["training"], "method": {"name": reference, **self.options}}
        content["training"]["fabric"] = {**content["training"]["fabric"], "num_devices": count}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(content, default=list), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "picolm.cli.main", "train", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
        if result.returncode != 0:
            raise PicoError(f"{count} processes end with code {result.returncode}: {_last_lines(result.stderr)}")
        return Trained(RunDirectory(self.folder / "runs" / name), self._config(content, name))

    def restored_model(self, run: Trained) -> LanguageModel:
        """The model as the method trains it, with the state of the run's last checkpoint."""
        parts = build_training(run.config, run.directory).parts
        with random_streams_kept():
            restore(parts, Progress(), run.directory.checkpoint(max(run.directory.steps())))
        return parts.model.eval()

    def stored_model(self, run: Trained) -> LanguageModel:
        """The model in the run's last checkpoint, as anybody opens it."""
        return load_model(run.directory.checkpoint(max(run.directory.steps())))

    def val_tokens(self) -> Tensor:
        """The held-out rows, (rows, T + 1)."""
        rows = open_prepared(self.workshop.data).split("val")
        return torch.from_numpy(rows.read(numpy.arange(rows.rows)))

    def val_loss(self, checkpoint: Path) -> float:
        """Nats per token on the held-out rows."""
        tokens_BT = self.val_tokens()
        with torch.no_grad():
            loss = load_model(checkpoint).loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:])
        return float(loss) / tokens_BT[:, 1:].numel()

    def _train(self, content: dict[str, Any], name: str, interrupt_at: Sequence[int], foreign_seed: int) -> Trained:
        config = self._config(content, name)
        with random_streams_kept():
            random.seed(foreign_seed)
            numpy.random.seed(foreign_seed)
            for step in interrupt_at:
                with suppress(Halted):
                    run_training(config, Halting(step))
            run_training(config, Silence())
        return Trained(RunDirectory(self.folder / "runs" / name), config)

    def _config(self, content: dict[str, Any], name: str) -> Any:
        from picolm.train.config import parse_config

        return parse_config(content, f"{name}.yaml", default_name=name)


def differing_columns(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """Columns of two logs that are not the same, those of the clock left out."""
    if len(first) != len(second):
        return ["the number of rows"]
    columns = {name for row in (*first, *second) for name in row} - TIMES
    pairs = list(zip(first, second, strict=True))
    return sorted(name for name in columns if any(before.get(name) != after.get(name) for before, after in pairs))


def _last_lines(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-3:])
