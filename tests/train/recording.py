"""An observer that keeps what it is told and can stop the run at a step."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file

from picolm.records.snapshot import Snapshot


class Recording:
    """Keeps rows and sentences; sends the process a signal once `stop_at` updates are made."""

    def __init__(self, stop_at: int | None = None, signal_number: int = signal.SIGTERM) -> None:
        self.rows: list[dict[str, Any]] = []
        self.sentences: list[str] = []
        self._stop_at = stop_at
        self._signal_number = signal_number

    def row(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def advance(self, step: int) -> None:
        if step == self._stop_at:
            os.kill(os.getpid(), self._signal_number)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step}" / "model.safetensors")


def all_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def file_hashes(run: Path, step: int) -> dict[str, str]:
    """Relative path -> SHA-256 of every file of a checkpoint, from its manifest."""
    import json

    manifest = json.loads((run / "checkpoints" / f"step_{step}" / "manifest.json").read_text())
    return {name: record["sha256"] for files in manifest["parts"].values() for name, record in files.items()}


def tokens_of(snapshot: Snapshot) -> torch.Tensor:
    """The batch of a snapshot, int64 (sequences, T + 1)."""
    return torch.from_numpy(numpy.stack(snapshot.batch()["input_ids"].to_list())).long()
