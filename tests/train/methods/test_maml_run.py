"""Whole runs: resumed in the middle of a buffer, in two processes, compiled, with a shared head, looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import picolm
from picolm.records import trainlog
from picolm.testing.tiny import merged, training_content
from picolm.train.train import run_training

from ..conftest import ConfigMaker
from ..recording import Recording, all_equal, file_hashes, weights
from ..test_processes import train, write_config

METHOD: dict[str, Any] = {
    "name": "maml",
    "ways": 5,
    "support": 2,
    "query": 2,
    "episodes": 3,
    "frequency_band": [0.0, 0.2],
    "buffer_sequences": 40,
}
SHARED = {**METHOD, "start": "shared", "head": "mlp", "head_width": 8}
PUBLISHED = {
    **{key: METHOD[key] for key in ("name", "ways", "support", "buffer_sequences")},
    "variant": "published",
    "head_width": 8,
}


def series(run: Path) -> list[dict[str, Any]]:
    """The rows of the log without the clock."""
    timed = ("tokens_per_second", "step_seconds", "paused_seconds", "mfu")
    return [
        {key: value for key, value in row.items() if key not in timed} for row in trainlog.read_rows(run / "logs/train.jsonl")
    ]


@pytest.mark.parametrize("method", [METHOD, SHARED, PUBLISHED], ids=["fresh", "shared", "published"])
def test_a_run_resumed_in_the_middle_of_a_buffer_equals_an_uninterrupted_one(make_config: ConfigMaker, method: dict[str, Any]):
    training = {"method": method}
    whole = run_training(make_config("whole", training=training), Recording()).run
    for stop_at in (3, 6):  # the buffer holds five steps
        run_training(make_config("parts", training=training), Recording(stop_at=stop_at))
    parts = run_training(make_config("parts", training=training), Recording()).run
    assert all_equal(weights(whole, 8), weights(parts, 8))
    assert series(whole) == series(parts)
    first, second = (file_hashes(run, 8) for run in (whole, parts))
    assert {name for name in first if first[name] != second.get(name)} == set()


def test_two_processes_train_as_one(make_config: ConfigMaker, tiny_data: Path, tmp_path: Path):
    training = {"method": SHARED, "fabric": {"precision": "64-true"}}
    one = run_training(make_config("one", training=training), Recording()).run
    content = merged(training_content(tiny_data, tmp_path)["training"], training)
    result = train(write_config(tmp_path, tiny_data, "two", training=content), "training.fabric.num_devices=2")
    assert result.returncode == 0, result.stderr
    two = tmp_path / "runs" / "two"
    for first, second in zip(series(one), series(two), strict=True):
        assert {name for name in first if first[name] is None} == {name for name in second if second[name] is None}
        known = [name for name in first if first[name] is not None]
        assert [second[name] for name in known] == pytest.approx([first[name] for name in known], rel=1e-6, abs=1e-9)
    final = [weights(run, 8) for run in (one, two)]
    assert all((final[0][name] - final[1][name]).norm() <= 1e-9 * final[0][name].norm() for name in final[0])


def test_the_log_keeps_text_and_episodes_apart(make_config: ConfigMaker):
    rows = series(run_training(make_config(training={"method": METHOD}), Recording()).run)
    assert {row["loss"] is None for row in rows} == {True, False}
    assert all((row["loss"] is None) is (row["query_loss_after"] is not None) for row in rows)
    text = sum(row["loss"] is not None for row in rows)
    assert rows[-1]["tokens"] == text * 8 * 16
    assert rows[-1]["method_tokens"] == (len(rows) - text) * 3 * 5 * 4 * 16
    assert 0 < rows[-1]["method_flops"] < rows[-1]["flops"]


def test_a_run_has_the_tensors_of_a_plain_one_and_its_model_opens_anywhere(make_config: ConfigMaker):
    plain = run_training(make_config("plain"), Recording()).run
    shared = run_training(make_config("shared", training={"method": SHARED}), Recording()).run
    for step in (0, 5, 8):
        names = [{path.relative_to(run) for path in (run / f"checkpoints/step_{step}").rglob("*")} for run in (plain, shared)]
        assert {str(path) for path in names[1] - names[0]} == {f"checkpoints/step_{step}/training_state/method.safetensors"}
        assert names[0] <= names[1]
        for data_type in ("train_gradients", "val_gradients", "train_activations", "val_activations"):
            file = f"checkpoints/step_{step}/learning_dynamics/{data_type}.safetensors"
            first, second = load_file(plain / file), load_file(shared / file)
            assert {name: tensor.shape for name, tensor in first.items()} == {name: t.shape for name, t in second.items()}
    assert picolm.load_model(shared / "checkpoints/step_8") is not None


EVERYTHING = {"ov_gradients": True, "moments": True, "micro_batch_norms": True, "positions": "all"}


def test_training_is_bit_identical_whether_it_is_looked_into_or_not(make_config: ConfigMaker):
    runs = []
    for name, dynamics in (("seen", EVERYTHING), ("unseen", {"enabled": False})):
        changes = {"training": {"method": SHARED}, "checkpointing": {"learning_dynamics": dynamics}}
        runs.append(run_training(make_config(name, **changes), Recording()).run)
    assert all_equal(weights(runs[0], 8), weights(runs[1], 8))
    assert series(runs[0]) == series(runs[1])


def test_a_snapshot_says_what_the_step_trained_on_and_which_pass_was_watched(make_config: ConfigMaker):
    steps = {"steps": [0, 1, 2, 3, 4], "learning_dynamics": EVERYTHING}
    run = run_training(make_config(training={"method": METHOD}, checkpointing=steps), Recording()).run
    plain = run_training(make_config("plain", checkpointing=steps), Recording()).run
    losses = {row["step"] - 1: row["loss"] for row in series(run)}
    objectives = set()
    for step in range(5):
        snapshot = picolm.open_run(run).checkpoint(step).snapshot("train")
        assert snapshot.info["objective"] == ("episodes" if losses[step] is None else "language model")
        assert "pass of their own" in snapshot.info["pass"]
        assert "micro_batch_tokens" not in snapshot.info
        objectives.add(snapshot.info["objective"])
    assert objectives == {"episodes", "language model"}
    first = picolm.open_run(plain).checkpoint(0).snapshot("train")
    assert first.info["objective"] == "language model"
    assert "made the gradient" in first.info["pass"]
    same_weights = picolm.open_run(run).checkpoint(0).snapshot("train")
    for name, tensor in first.activations.items():  # the same rows through the same weights
        assert (same_weights.activations[name] - tensor).norm() <= 1e-5 * tensor.norm()


def test_an_analysis_inside_the_loop_sees_every_step(make_config: ConfigMaker, tmp_path: Path):
    file = tmp_path / "per.yaml"
    file.write_text(
        """
analysis_name: per
metrics: [per, gini]
components:
  - {name: simple, data_type: weights, layer_suffixes: [attention.v_proj]}
  - {name: simple, data_type: gradients, layer_suffixes: [attention.v_proj], data_split: train}
  - {name: simple, data_type: gradients, layer_suffixes: [attention.v_proj], data_split: val}
"""
    )
    online = {"file": str(file), "every": 1}
    run = run_training(make_config(training={"method": METHOD, "online_analysis": online}), Recording()).run
    rows = picolm.open_run(run).rows("per")
    measured = rows[rows["value"].notna()].groupby(["step", "data_type", "split"]).size()
    assert len(measured) == 9 * 3


def test_a_compiled_run_trains_on_the_same_episodes_and_resumes_bit_for_bit(make_config: ConfigMaker):
    small = {"n_layers": 1}
    training = {"method": SHARED, "max_steps": 5}
    eager = run_training(make_config("eager", training=training, model=small), Recording()).run
    compiled = {**training, "compile": True, "deterministic": True}
    whole = run_training(make_config("whole", training=compiled, model=small), Recording()).run
    run_training(make_config("parts", training=compiled, model=small), Recording(stop_at=3))
    parts = run_training(make_config("parts", training=compiled, model=small), Recording()).run
    assert all_equal(weights(whole, 5), weights(parts, 5))
    for first, second in zip(series(eager), series(whole), strict=True):
        for name in ("loss", "query_loss_after", "support_loss_after", "gradient_norm"):
            assert second[name] == (None if first[name] is None else pytest.approx(first[name], rel=1e-4))
