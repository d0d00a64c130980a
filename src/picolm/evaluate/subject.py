"""What is evaluated: checkpoints of a run, or any model folder. A path comes in, models with their tokenizer go out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from picolm.base.config import parse_settings, read_yaml
from picolm.base.errors import PicoError
from picolm.data.contract import TokenSource, open_source
from picolm.data.tokenizer import TextTokenizer, load_tokenizer
from picolm.evaluate.contract import EvaluationConfig
from picolm.model.contract import load_model
from picolm.records.manifest import read_manifest
from picolm.records.rundir import CheckpointFolder, RunDirectory


@dataclass(frozen=True)
class Subject:
    """One model folder; with `run` and `step` if it is a checkpoint."""

    folder: Path
    run: RunDirectory | None = None
    step: int | None = None
    hub_name: str = ""
    """What it is called on the Hub, if it came from there: its folder is named after a commit."""

    @property
    def name(self) -> str:
        if self.hub_name:
            return self.hub_name
        return self.folder.resolve().name if self.run is None else f"{self.run.name}@{self.step}"

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, where the folder says so."""
        return None if self.run is None else read_manifest(self.folder).tokens

    def load_model(self) -> nn.Module:
        """The model; one of an architecture not known here comes through transformers (extra `hf`), without remote code."""
        try:
            return load_model(self.folder)
        except PicoError as error:
            if "which no architecture here opens" not in error.message:
                raise
            return _through_transformers(self.folder, error)

    def load_tokenizer(self) -> TextTokenizer | None:
        """The tokenizer kept beside the model; None if there is none."""
        path = CheckpointFolder(self.folder).tokenizer
        return load_tokenizer(path) if path.is_file() else None

    def prefix_token_id(self, tokenizer: TextTokenizer | None) -> int | None:
        """The beginning-of-text token, if the tokenizer's settings name one; else None: end-of-text stands in, as in lm-eval."""
        path = self.folder / "tokenizer_config.json"
        named = json.loads(path.read_text(encoding="utf-8")).get("bos_token") if path.is_file() else None
        text = named.get("content") if isinstance(named, dict) else named
        if tokenizer is None or not isinstance(text, str):
            return None
        ids = tokenizer.encode(text)
        return int(ids[0]) if len(ids) == 1 else None


def _through_transformers(folder: Path, error: PicoError) -> nn.Module:
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise PicoError(error.message, f"{error.hint}; or install the extra `hf`: pip install 'picolm[hf]'") from error
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return model


def find_subjects(target: str, steps: Sequence[int] | None, *, last_only: bool = False) -> list[Subject]:
    """The checkpoints of a run (all, the last, those of `steps`, or the one of `RUN@STEP`), or the one model in a folder."""
    place, at, number = target.rpartition("@")
    if at and number.isdecimal() and RunDirectory(Path(place)).identity_file.is_file():
        return find_subjects(place, [int(number)])
    path = Path(target).expanduser()
    run = RunDirectory(path)
    if run.identity_file.is_file():
        chosen = _chosen_steps(run, steps)
        return [Subject(run.checkpoint(step), run, step) for step in (chosen[-1:] if last_only else chosen)]
    hub_name = target if not path.exists() and len(path.parts) == 2 else ""
    if hub_name:
        path = _from_hub(target)
    if not CheckpointFolder(path).model_config.is_file():
        raise PicoError(f"{target} is neither a run folder nor a model folder", "name a folder with a run.json or a config.json")
    if steps and not last_only:
        raise PicoError(f"--steps: {target} is one model, not a run", "leave --steps out, or name the run folder")
    return [Subject(path, hub_name=hub_name)]


def _from_hub(target: str) -> Path:
    """The model folder of `owner/name`, or of `owner/name@revision`, such as one step of a published series."""
    from huggingface_hub import snapshot_download

    name, _, revision = target.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the client raises several families; each means that there is no model
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PicoError(
            f"{target} is neither a local folder nor to be had from the Hub: {first_line}", "name a folder"
        ) from error


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
