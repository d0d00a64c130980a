"""The Python face: a run, its checkpoints, metrics and analysis, without a shell. See the README for a tour."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError
from picolm.records import manifest, trainlog
from picolm.records.evaluation import read_scores
from picolm.records.rundir import RunDirectory, open_run_directory
from picolm.records.snapshot import Snapshot, open_snapshot
from picolm.records.table import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas

    from picolm.model.contract import LanguageModel
    from picolm.train.config import RunConfig


@dataclass(frozen=True)
class Checkpoint:
    """One sealed checkpoint, verified when it was opened."""

    path: Path
    manifest: manifest.Manifest

    @property
    def step(self) -> int:
        """Number of updates made before it was taken."""
        return self.manifest.step

    @property
    def tokens(self) -> int | None:
        """Training tokens seen; None where a captured series does not tell."""
        return self.manifest.tokens

    def load_model(self) -> LanguageModel:
        """The model as a torch module, in float32 on the CPU, in evaluation mode."""
        return load_model(self.path)

    def snapshot(self, split: str = "train") -> Snapshot:
        """Weights, activations, gradients and updates of a split (`train` or `val`), read on demand."""
        return open_snapshot(self.path, self.step, split)


@dataclass(frozen=True)
class Run:
    """A run folder, for reading."""

    directory: RunDirectory

    @property
    def path(self) -> Path:
        return self.directory.path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return self.directory.steps()

    @property
    def identity(self) -> dict[str, Any]:
        """`run.json`: code version, environment, data, seeds."""
        return self.directory.identity()

    @property
    def config(self) -> RunConfig[Any]:
        """The resolved, typed configuration."""
        from picolm.train.identity import read_config

        return read_config(self.directory)

    def log(self) -> pandas.DataFrame:
        """One row per logged step: losses, learning rate, gradient norm, tokens, speed."""
        return trainlog.read_log(self.directory.log_file)

    def scores(self) -> pandas.DataFrame:
        """One row per evaluation score and step."""
        return read_scores(self.directory)

    def rows(self, analysis: str | None = None) -> pandas.DataFrame:
        """The tidy rows of one analysis, or of all."""
        names = self.directory.analysis_names() if analysis is None else [analysis]
        return read_rows([self.directory.analysis(name) for name in names])

    def checkpoint(self, step: int) -> Checkpoint:
        """The checkpoint of a step, every file checked against its manifest; PicoError if there is none or it is damaged."""
        steps = self.steps
        if step not in steps:
            shown = ", ".join(str(known) for known in steps) or "none"
            raise PicoError(f"{self.path} has no checkpoint of step {step}", f"steps: {shown}")
        folder = self.directory.checkpoint(step)
        return Checkpoint(folder, manifest.verify(folder, partial=True))


def open_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder; PicoError if it is none."""
    return Run(open_run_directory(path))


def load_model(folder: str | os.PathLike[str]) -> LanguageModel:
    """The model in a checkpoint folder or any plain Hugging Face Llama folder, in float32 on the CPU."""
    from picolm.model.contract import load_model

    return load_model(Path(folder))


def metric(name: str) -> Callable[..., float]:
    """The metric called `name` as a function of tensors and options: a float, or picolm.Undefined with the reason."""
    from picolm.analyze.metrics.contract import metric_function

    function: Callable[..., float] = metric_function(name)
    return function
