"""Reads run folders written by the original trainer: no manifest, native tensor names, learning dynamics as `.pt` files.

Nothing in them is executed: `.pt` files are read as plain tensors (weights-only loading), anything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.config import read_yaml
from picolm.base.errors import PicoError
from picolm.records.manifest import hash_file
from picolm.records.rundir import CheckpointFolder
from picolm.records.snapshot import Layout, Placement, Snapshot, TensorFile, open_weights

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "pico_decoder."
"""What stands before every tensor name in their model.safetensors."""

CAPTURED = ("activations", "weights", "gradients")

GRADIENT_NOTE = (
    "gradient as the original trainer stores it: recomputed on a copy, means of sub-batches added up, so its scale depends on "
    "how the batch was split"
)


def is_legacy_run(path: Path) -> bool:
    """Whether a folder looks like a run of the original trainer."""
    folders = (path / "checkpoints").glob("step_*")
    return not (path / "run.json").exists() and any(_step_of(folder) is not None for folder in folders)


def _step_of(folder: Path) -> int | None:
    """The step of a checkpoint folder with something in it that can be read; None otherwise."""
    number = folder.name.removeprefix("step_")
    holds = (folder / "model.safetensors").is_file() or (folder / "learning_dynamics").is_dir()
    return int(number) if number.isdecimal() and holds and not (folder / "manifest.json").exists() else None


@dataclass(frozen=True)
class LegacyRun:
    """A run folder of the original trainer, for reading."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        found = (_step_of(folder) for folder in (self.path / "checkpoints").glob("step_*"))
        return sorted(step for step in found if step is not None)

    def checkpoint(self, step: int) -> CheckpointFolder:
        """The folder of a step."""
        return CheckpointFolder(self.path / "checkpoints" / f"step_{step}")

    @cached_property
    def config(self) -> dict[str, Any]:
        """Their `training_config.yaml`; empty if it is not there."""
        path = self.path / "training_config.yaml"
        return read_yaml(path) if path.is_file() else {}

    def tokens(self, step: int) -> int | None:
        """Training tokens seen at a step, where the configuration tells."""
        batch = self.config.get("data", {}).get("dataloader", {}).get("batch_size")
        length = self.config.get("model", {}).get("max_seq_len")
        return step * int(batch) * int(length) if batch and length else None

    def layout(self, step: int) -> Layout:
        """Which tensor is which part, from the checkpoint's `config.json` or the training configuration."""
        path = self.checkpoint(step).model_config
        described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        model = {**self.config.get("model", {}), **described}
        try:
            query_heads, width, layers = int(model["attention_n_heads"]), int(model["d_model"]), int(model["n_layers"])
        except (KeyError, TypeError, ValueError) as error:
            raise PicoError(f"{path} does not describe a pico decoder: {error}", "it is written with every checkpoint") from error
        groups = model.get("attention_n_kv_heads") or query_heads
        return Layout("pico_decoder", query_heads, int(groups), width // query_heads, _placements(layers))

    def snapshot(self, step: int, split: str) -> Snapshot:
        """The snapshot of one split; tensors are read when asked for."""
        checkpoint, layout = self.checkpoint(step), self.layout(step)
        files = {kind: captured(self.captured_file(step, split, kind), kind, split) for kind in CAPTURED}
        weights = open_weights(checkpoint.weights, layout) if checkpoint.weights.is_file() else files["weights"]
        return Snapshot(
            step=step,
            split=split,
            layout=layout,
            weights=weights,
            activations=files["activations"],
            gradients=files["gradients"],
            updates=TensorFile({}, "the original trainer captures no updates"),
            info={"split": split, "step": step, "gradient": GRADIENT_NOTE},
            folder=checkpoint,
        )

    def captured_file(self, step: int, split: str, data_type: str) -> Path:
        """Where tensors of a type were captured."""
        return self.checkpoint(step).learning_dynamics / f"{split}_{data_type}.pt"

    def hashes(self, step: int, split: str, data_types: tuple[str, ...]) -> list[str]:
        """SHA-256 of the files that tensors of these types are read from; `absent` where there is none."""
        weights = self.checkpoint(step).weights
        read = [
            weights if kind == "weights" and weights.is_file() else self.captured_file(step, split, kind) for kind in data_types
        ]
        return [_hash(path) for path in (self.checkpoint(step).model_config, *read)]


def _placements(layers: int) -> dict[str, Placement]:
    roles = {"embedding_proj": "embedding"}
    for layer in range(layers):
        parts = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
        roles |= {f"layers.{layer}.attention.{part}": role for part, role in parts.items()}
        roles |= {f"layers.{layer}.swiglu.{part}": role for part, role in {"w_0": "gate", "w_1": "up", "w_2": "down"}.items()}
        roles |= {f"layers.{layer}.{part}": "norm" for part in ("attention_norm", "swiglu_norm")}
    roles |= {"output_norm": "norm", "de_embedding_proj": "unembedding"}
    return {name: Placement(f"{PREFIX}{name}.weight", role) for name, role in roles.items()}


def captured(path: Path, data_type: str, split: str) -> TensorFile:
    """The tensors of one `.pt` file; nothing is read before a name is asked for, except the list of names."""
    if not path.is_file():
        return TensorFile({}, f"{data_type} of split {split} were not captured at this step")
    tensors = _load(path)

    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: tensors[name].detach().clone()

    return TensorFile({_plain(name): reader(name) for name in tensors}, "")


def _load(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise PicoError(f"{path} cannot be read as plain tensors: {error}", "files that hold code are never loaded") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise PicoError(f"{path} does not hold named tensors")
    return {str(name): value for name, value in content.items()}


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX).removesuffix(".weight")


def _hash(path: Path) -> str:
    return hash_file(path).sha256 if path.is_file() else "absent"
