"""Tiny ReLoRA runs: twelve updates, three of them at full rank, a reset after every third one that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.testing.tiny import merged, training_content
from picolm.train.config import parse_config
from picolm.train.train import run_training

from ..recording import Recording

OPTIONS = {
    "name": "relora",
    "rank": 4,
    "alpha": 8.0,
    "dropout": 0.0,
    "warm_start_share": 0.25,
    "reset_every_steps": 3,
    "ramp_steps": 4,
}
STEPS = 12
WARM_START_STEPS = 3
RESETS = (7, 10)
"""Numbers of updates after which a reset follows: one more than a whole number of periods after the warm start."""
PUBLISHED_RESETS = (4, 7, 10)


def relora_content(data: Path, runs: Path, name: str, changes: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The training file as a mapping."""
    content = merged(training_content(data, runs, name), {"training": {"max_steps": STEPS}})
    content["checkpointing"]["steps"] = [2, 3, 5, 6, 7, 8]
    content = merged(content, changes)
    content["training"]["method"] = {**OPTIONS, **options}
    return content


def train_relora(data: Path, runs: Path, name: str, changes: dict[str, Any] | None = None, **options: Any) -> RunDirectory:
    """A finished run."""
    content = relora_content(data, runs, name, changes or {}, **options)
    return RunDirectory(run_training(parse_config(content, "tiny.yaml", default_name=name), Recording()).run)


def column(run: RunDirectory, name: str) -> dict[int, float]:
    """Updates made -> value, of the rows that have one."""
    return {row["step"]: row[name] for row in trainlog.read_rows(run.log_file) if row.get(name) is not None}
