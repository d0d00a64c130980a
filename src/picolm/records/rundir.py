"""The run folder: the only place that knows where a run keeps what. See the drawing in the README."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError, nearest
from picolm.records import durable
from picolm.records.manifest import sealed_steps

RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
"""What a run may be called: safe as a folder, a branch and a tag."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. Nothing is created by asking for a path."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def identity_file(self) -> Path:
        """`run.json`: identity, code version, environment, data fingerprint, config hash."""
        return self.path / "run.json"

    @property
    def config_file(self) -> Path:
        """`training_config.yaml`: the resolved configuration."""
        return self.path / "training_config.yaml"

    @property
    def source_file(self) -> Path:
        """`source.json`: the series that a captured run stands for, and what is odd about it."""
        return self.path / "source.json"

    @property
    def lock_file(self) -> Path:
        """There while a process writes into the run."""
        return self.path / "run.lock"

    @property
    def log_file(self) -> Path:
        return self.path / "logs" / "train.jsonl"

    def nonfinite_file(self, step: int) -> Path:
        """What is known about a step whose loss or gradient was not finite."""
        return self.path / "logs" / "nonfinite" / f"step_{step}.json"

    def nonfinite_random_file(self, step: int, rank: int) -> Path:
        """The random generators of one process after the forward pass of such a step."""
        return self.nonfinite_file(step).with_suffix(f".random_rank{rank}.safetensors")

    def tracker_folder(self, tracker: str) -> Path:
        """Where `tensorboard` or `wandb` keeps what it is told about this run."""
        return self.path / tracker

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluation"

    @property
    def analyses(self) -> Path:
        return self.path / "analysis"

    @property
    def reports(self) -> Path:
        return self.path / "report"

    @property
    def report_page(self) -> Path:
        """Where `pico report` writes the page of this run if it is not told otherwise."""
        return self.reports / "index.html"

    @property
    def outbox(self) -> Path:
        """What is to be published on the Hub, and how far that is."""
        return self.path / "outbox"

    @property
    def outbox_destination(self) -> Path:
        """Where the run is published."""
        return self.outbox / "destination.json"

    @property
    def outbox_status(self) -> Path:
        """What the uploader is doing."""
        return self.outbox / "status.json"

    @property
    def outbox_log(self) -> Path:
        """What the uploader says while nobody watches."""
        return self.outbox / "uploader.log"

    def outbox_entry(self, step: int) -> Path:
        """Whether the checkpoint of a step waits or is published."""
        return self.outbox / f"step_{step}.json"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step_{step}"

    def evaluation_file(self, step: int) -> Path:
        return self.evaluations / f"step_{step}.json"

    def items_file(self, step: int, evaluation: str) -> Path:
        """The headline measure of an evaluation item by item."""
        return self.evaluations / "items" / f"step_{step}.{evaluation}.parquet"

    def evaluated_steps(self) -> list[int]:
        """Steps that have scores, ascending."""
        numbers = (path.stem.removeprefix("step_") for path in self.evaluations.glob("step_*.json"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def analysis(self, name: str) -> Path:
        if not RUN_NAME.match(name):
            raise PicoError(f"analysis_name: {name!r} is not a folder name", "letters, digits, dot, dash and underscore")
        return self.analyses / name

    def analysis_names(self) -> list[str]:
        """Names of the analyses with at least one part."""
        return sorted({part.parent.name for part in self.analyses.glob("*/part-*.parquet")})

    def steps(self) -> list[int]:
        """Steps that have a sealed checkpoint, ascending."""
        return sealed_steps(self.checkpoints)

    def identity(self) -> dict[str, Any]:
        """The content of `run.json`."""
        try:
            identity = json.loads(self.identity_file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PicoError(f"{self.path} is not a run folder: it has no run.json", _near_runs(self.path)) from error
        except ValueError as error:
            raise PicoError(f"{self.identity_file} is damaged: {error}") from error
        if not isinstance(identity, dict):
            raise PicoError(f"{self.identity_file} is damaged: it does not hold an object")
        return identity

    def write_identity(self, identity: dict[str, Any]) -> None:
        durable.write_json(self.identity_file, identity)


@dataclass(frozen=True)
class CheckpointFolder:
    """Paths inside one checkpoint folder `step_<N>`."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def source(self) -> Path:
        """`source.json`: where the weights of a captured checkpoint are, instead of a copy."""
        return self.path / "source.json"

    @property
    def weight_sample(self) -> Path:
        """A few thousand weights of a captured checkpoint, drawn alike at every step: how far the series has moved."""
        return self.path / "weight_sample.safetensors"

    @property
    def model_config(self) -> Path:
        return self.path / "config.json"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def layout(self) -> Path:
        return self.path / "layout.json"

    @property
    def native_weights(self) -> Path:
        """Weights under the decoder's own names: only with `checkpointing.formats: [pytorch]`."""
        return self.path / "pytorch" / "model.safetensors"

    @property
    def training_state(self) -> Path:
        return self.path / "training_state"

    @property
    def learning_dynamics(self) -> Path:
        return self.path / "learning_dynamics"

    def dynamics_tensors(self, split: str, data_type: str) -> Path:
        return self.learning_dynamics / f"{split}_{data_type}.safetensors"

    def dynamics_batch(self, split: str) -> Path:
        return self.learning_dynamics / f"{split}_batch.parquet"

    def dynamics_info(self, split: str) -> Path:
        return self.learning_dynamics / f"{split}.json"


def open_run_directory(path: str | os.PathLike[str]) -> RunDirectory:
    """The run folder at `path`; PicoError if there is none."""
    run = RunDirectory(Path(path))
    run.identity()
    return run


def list_runs(runs: Path) -> list[RunDirectory]:
    """The run folders directly below a folder, by name."""
    if not runs.is_dir():
        return []
    return [RunDirectory(entry) for entry in sorted(runs.iterdir()) if (entry / "run.json").is_file()]


def check_run_name(name: str, setting: str = "checkpointing.run_name") -> str:
    """`name`, if it can be a folder, a branch and a tag; PicoError otherwise."""
    if not RUN_NAME.match(name) or name.endswith((".", ".lock")) or ".." in name:
        raise PicoError(f"{setting}: {name!r} is not a run name", "letters, digits, dot, dash, underscore; at most 96")
    return name


def _near_runs(path: Path) -> str:
    names = [run.name for run in list_runs(path.parent)]
    close = nearest(path.name, names)
    if close is not None:
        return f"did you mean `{close}`?"
    return f"runs beside it: {', '.join(names[:20])}" if names else "`pico runs` lists what exists; `pico train` makes one"
