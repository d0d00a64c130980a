"""What a snapshot holds only if asked for, out of a real run: circuits, moments, micro-batch norms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import picolm
from picolm.records.snapshot import Snapshot, open_snapshot
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, tokens_of, weights

EVERYTHING = {"ov_gradients": True, "moments": True, "micro_batch_norms": True}


def train_with_everything(make_config: ConfigMaker, name: str = "rich", **training: Any) -> Path:
    dynamics = {"learning_dynamics": EVERYTHING}
    return run_training(make_config(name, checkpointing=dynamics, training=training), Recording()).run


def snapshot_of(run: Path, step: int, split: str = "train") -> Snapshot:
    return open_snapshot(run / "checkpoints" / f"step_{step}", step, split)


def test_training_is_the_same_whatever_is_kept_of_it(make_config: ConfigMaker):
    rich = train_with_everything(make_config)
    plain = run_training(
        make_config("plain", checkpointing={"learning_dynamics": {"enabled": False}, "steps": [0]}), Recording()
    ).run
    assert all_equal(weights(rich, 8), weights(plain, 8))


@pytest.mark.parametrize("split", ["train", "val"])
def test_circuit_gradients_give_back_the_gradients_of_output_and_value(make_config: ConfigMaker, split: str):
    run = train_with_everything(make_config, fabric={"precision": "64-true"})
    snapshot = snapshot_of(run, 5, split)
    circuits = snapshot.tensors("ov_gradients")
    assert list(circuits) == ["layers.0.ov_gradient", "layers.1.ov_gradient"]
    for layer, gradient_HDD in enumerate(circuits.values()):
        value_KD = snapshot.weights[f"layers.{layer}.attention.v_proj"].double()
        output_DHK = snapshot.weights[f"layers.{layer}.attention.o_proj"].double().unflatten(1, (2, 8))
        expected_output = snapshot.gradients[f"layers.{layer}.attention.o_proj"]
        expected_value = snapshot.gradients[f"layers.{layer}.attention.v_proj"]
        found_output = torch.einsum("hde,ke->dhk", gradient_HDD.double(), value_KD).flatten(1)
        found_value = torch.einsum("dhk,hde->ke", output_DHK, gradient_HDD.double())
        assert (found_output - expected_output).norm() <= 1e-6 * expected_output.norm()  # weights are stored in 32 bits
        assert (found_value - expected_value).norm() <= 1e-6 * expected_value.norm()


def test_the_circuit_component_reads_them(make_config: ConfigMaker, tmp_path: Path):
    run = train_with_everything(make_config)
    analysis = tmp_path / "circuits.yaml"
    analysis.write_text(
        "analysis_name: circuits\nmetrics: [{name: norm, norm_type: frobenius}]\ndata_split: train\n"
        "components: [{name: ov_circuit, data_type: gradients}]\n"
    )
    rows = picolm.analyze(run, analysis)
    assert rows["value"].notna().all()
    row = rows[(rows["step"] == 2) & (rows["layer"] == 1) & (rows["head"] == 0)].iloc[0]
    expected = snapshot_of(run, 2).tensors("ov_gradients")["layers.1.ov_gradient"][0].double().norm()
    assert row["value"] == pytest.approx(float(expected), rel=1e-12)


def test_moments_are_those_that_the_next_state_starts_from(make_config: ConfigMaker):
    run = train_with_everything(make_config)
    after = load_file(run / "checkpoints/step_2/training_state/optimizer.safetensors")
    snapshot = snapshot_of(run, 1)
    for name in snapshot.gradients:
        assert torch.equal(snapshot.tensors("momentum")[name], after[f"{name}.weight/exp_avg"])
        assert torch.equal(snapshot.tensors("second_moment")[name], after[f"{name}.weight/exp_avg_sq"])
    assert not snapshot_of(run, 8).tensors("momentum")  # no update follows the last step
    assert not snapshot_of(run, 1, "val").tensors("momentum")


def test_micro_batch_norms_are_those_of_gradients_taken_by_hand(make_config: ConfigMaker):
    run = train_with_everything(make_config, optimization={"gradient_accumulation_steps": 4})
    snapshot = snapshot_of(run, 5)
    model = picolm.load_model(run / "checkpoints/step_5")
    assert snapshot.info["micro_batch_tokens"] == [32] * 4
    for number, tokens_BT in enumerate(tokens_of(snapshot).chunk(4)):
        model.zero_grad()
        (model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / 32).backward()
        for name, norms in snapshot.info["micro_batch_squared_norms"].items():
            assert norms[number] == pytest.approx(float(model.get_parameter(f"{name}.weight").grad.square().sum()), rel=1e-4)
    assert set(snapshot.info["micro_batch_squared_norms"]) == set(snapshot.gradients)
    assert "micro_batch_tokens" not in snapshot_of(run, 5, "val").info
