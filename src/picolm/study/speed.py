"""How long a run of a study takes here: measured on its own first steps, with its method, its data and its evaluations."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from picolm.base.config import apply_overrides
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig, parse_config

PROBE_STEPS = 30
WARM_STEPS = 5
"""Steps that are not counted: the first ones are slower."""


def measured_seconds(config: RunConfig[Any], threads: int) -> float:
    """Seconds that the whole run will take: steps and evaluations each at the pace of a run of `PROBE_STEPS` steps."""
    import torch

    from picolm.train.run import Silence
    from picolm.train.train import run_training

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory(prefix="pico-probe-") as folder:
            probe = _probe(config, folder)
            run_training(probe, Silence())
            rows = trainlog.read_rows(RunDirectory(Path(folder) / probe.run_name).log_file)
    finally:
        torch.set_num_threads(before)
    counted = [row["step_seconds"] for row in rows[WARM_STEPS:]] or [row["step_seconds"] for row in rows]
    step_seconds: float = sorted(counted)[len(counted) // 2]
    pause_seconds: float = max((row["paused_seconds"] for row in rows), default=0.0)
    return config.training.max_steps * step_seconds + evaluations_of(config) * pause_seconds


def evaluations_of(config: RunConfig[Any]) -> int:
    """How often the run is evaluated, at most."""
    steps = set(config.checkpoint_steps)
    last = config.training.max_steps
    counts = [
        len(steps) if entry.every_n_steps is None else last // entry.every_n_steps + 1 for entry in config.evaluation.entries
    ]
    return max(counts, default=0)


def _probe(config: RunConfig[Any], folder: str) -> RunConfig[Any]:
    steps = min(PROBE_STEPS, config.training.max_steps)
    content = config.model_dump(mode="json")
    overrides = [
        f"training.max_steps={steps}",
        f"checkpointing.runs_dir={folder}",
        "checkpointing.run_name=probe",
        "checkpointing.steps=[0]",
        "monitoring.logging.log_every_n_steps=1",
    ]
    return parse_config(apply_overrides(content, overrides), "probe", default_name="probe")
