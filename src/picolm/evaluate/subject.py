"""What is evaluated: checkpoints of a run, or any model folder. A path comes in, models with their tokenizer go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.config import parse_settings, read_yaml
from picolm.base.errors import PicoError
from picolm.data.contract import TokenSource, open_source
from picolm.data.tokenizer import TextTokenizer, load_tokenizer
from picolm.evaluate.contract import EvaluationConfig
from picolm.model.contract import LanguageModel, load_model
from picolm.records.manifest import read_manifest
from picolm.records.rundir import CheckpointFolder, RunDirectory


@dataclass(frozen=True)
class Subject:
    """One model folder; with `run` and `step` if it is a checkpoint."""

    folder: Path
    run: RunDirectory | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        return self.folder.name if self.run is None else f"{self.run.name} step {self.step}"

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, where the folder says so."""
        return None if self.run is None else read_manifest(self.folder).tokens

    def load_model(self) -> LanguageModel:
        return load_model(self.folder)

    def load_tokenizer(self) -> TextTokenizer | None:
        """The tokenizer kept beside the model; None if there is none."""
        path = CheckpointFolder(self.folder).tokenizer
        return load_tokenizer(path) if path.is_file() else None


def find_subjects(path: Path, steps: Sequence[int] | None) -> list[Subject]:
    """The checkpoints of a run (all, or those of `steps`), or the one model in a folder."""
    run = RunDirectory(path)
    if run.identity_file.is_file():
        return [Subject(run.checkpoint(step), run, step) for step in _chosen_steps(run, steps)]
    if not CheckpointFolder(path).model_config.is_file():
        raise PicoError(f"{path} is neither a run folder nor a model folder", "name a folder with a run.json or a config.json")
    if steps:
        raise PicoError(f"--steps: {path} is one model, not a run", "leave --steps out, or name the run folder")
    return [Subject(path)]


def _chosen_steps(run: RunDirectory, steps: Sequence[int] | None) -> list[int]:
    there = run.steps()
    if not there:
        raise PicoError(f"{run.path} has no finished checkpoint", "`pico train` writes them")
    missing = sorted(set(steps or ()) - set(there))
    if missing:
        raise PicoError(f"--steps: there is no checkpoint of step {missing[0]}", "there are: " + ", ".join(map(str, there)))
    return sorted(set(steps)) if steps else there


def run_evaluation_config(run: RunDirectory) -> EvaluationConfig:
    """The section `evaluation` of a run's own configuration."""
    section = read_yaml(run.config_file).get("evaluation") or {}
    return parse_settings(EvaluationConfig, section, f"{run.config_file}: evaluation")


def run_data(run: RunDirectory) -> TokenSource | None:
    """The prepared data a run was trained on, if it is still where the configuration says."""
    data: dict[str, Any] = read_yaml(run.config_file).get("data") or {}
    name = str((data.get("dataset") or {}).get("name", ""))
    return open_source(name, {}) if name and (Path(name) / "manifest.json").is_file() else None
