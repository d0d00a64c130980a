"""Observing disturbs nothing, and sees the same, where the step is compiled and where two processes share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from picolm.records.snapshot import open_snapshot
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, file_hashes, weights
from .test_online import rows_of
from .test_processes import train, write_config

RICH = {"ov_gradients": True, "moments": True, "micro_batch_norms": True}
OFF = {"learning_dynamics": {"enabled": False}, "steps": [0]}
STATE = "training_state/optimizer.safetensors"
GRADIENTS = """
analysis_name: inside
metrics: [per]
components:
  - {name: simple, data_type: gradients, data_split: train}
  - {name: ov_circuit, data_type: gradients, data_split: val}
"""


def observed(folder: Path, **changes: Any) -> dict[str, Any]:
    """Everything that can be watched, watched."""
    file = folder / "inside.yaml"
    file.write_text(GRADIENTS)
    training = {"online_analysis": {"file": str(file), "every": 3}, **changes}
    return {"training": training, "checkpointing": {"learning_dynamics": RICH}}


def assert_seen_alike(first: Path, second: Path, step: int, tolerance: float) -> None:
    for split in ("train", "val"):
        ours, theirs = (open_snapshot(run / "checkpoints" / f"step_{step}", step, split) for run in (first, second))
        for kind in ("activations", "gradients", "ov_gradients"):
            found, expected = ours.tensors(kind), theirs.tensors(kind)
            assert list(found) == list(expected) != []
            for name in expected:
                difference = found[name].double() - expected[name].double()
                assert difference.norm() <= tolerance * expected[name].double().norm(), (split, kind, name)


def test_observing_a_compiled_step_changes_nothing_and_sees_what_the_plain_one_shows(make_config: ConfigMaker, tmp_path: Path):
    small = {"model": {"n_layers": 1}}  # compiling is what takes the time
    compiled = {"compile": True, "deterministic": True}  # compiled sums over threads repeat only then
    alone = run_training(make_config("alone", training=compiled, checkpointing=OFF, **small), Recording()).run
    watched = run_training(make_config("watched", **observed(tmp_path, **compiled), **small), Recording()).run
    assert all_equal(weights(watched, 8), weights(alone, 8))
    assert file_hashes(watched, 8)[STATE] == file_hashes(alone, 8)[STATE]
    plain = run_training(make_config("plain", **observed(tmp_path), **small), Recording()).run
    assert_seen_alike(watched, plain, 0, 1e-4)
    infos = [open_snapshot(run / "checkpoints/step_0", 0, "train").info for run in (watched, plain)]
    for name, norms in infos[1]["micro_batch_squared_norms"].items():
        assert infos[0]["micro_batch_squared_norms"][name] == pytest.approx(norms, rel=1e-4)
    assert rows_of(watched)["value"].to_numpy() == pytest.approx(rows_of(plain)["value"].to_numpy(), rel=0.05)


def test_observing_two_processes_changes_nothing_and_sees_what_one_shows(
    make_config: ConfigMaker, tiny_data: Path, tmp_path: Path
):
    exact = {"fabric": {"precision": "64-true", "accelerator": "cpu"}}
    settings = observed(tmp_path, **exact)
    two = "training.fabric.num_devices=2"
    for name, changes in (("watched", settings), ("alone", {"training": exact, "checkpointing": OFF})):
        result = train(write_config(tmp_path, tiny_data, name, **changes), two)
        assert result.returncode == 0, result.stderr
    watched, alone = (tmp_path / "runs" / name for name in ("watched", "alone"))
    assert all_equal(weights(watched, 8), weights(alone, 8))
    assert file_hashes(watched, 8)[STATE] == file_hashes(alone, 8)[STATE]
    settings["training"]["optimization"] = {"gradient_accumulation_steps": 4}
    one = run_training(make_config("one", **settings), Recording()).run
    assert_seen_alike(watched, one, 0, 1e-12)
    infos = [open_snapshot(run / "checkpoints/step_5", 5, "train").info for run in (watched, one)]
    assert infos[0]["micro_batch_tokens"] == infos[1]["micro_batch_tokens"] == [32] * 4
    for name, norms in infos[1]["micro_batch_squared_norms"].items():
        assert infos[0]["micro_batch_squared_norms"][name] == pytest.approx(norms, rel=1e-9)
    torch.testing.assert_close(
        torch.tensor(rows_of(watched)["value"].to_numpy()), torch.tensor(rows_of(one)["value"].to_numpy()), rtol=1e-9, atol=0
    )
