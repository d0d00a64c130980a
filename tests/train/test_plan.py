"""What `pico plan` promises is what runs and what the paper counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from picolm.cli.main import app
from picolm.model.contract import flops_per_token
from picolm.train.config import load_config
from picolm.train.plan import in_bytes, optimizer_bytes, plan_run, shape_of, storage_sentences
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording

CONFIGS = Path(__file__).parents[2] / "configs"

TABLE_4 = {"tiny": (11, 151, 96), "small": (65, 863, 384), "medium": (181, 2.4 * 1024, 768), "large": (570, 7.5 * 1024, 1536)}
"""Size -> millions of parameters, model state in MiB (as the paper counts), width."""


@pytest.mark.parametrize("size", TABLE_4)
def test_parameters_and_model_state_are_those_of_the_papers_table_4(size: str):
    planned = plan_run(load_config(CONFIGS / f"pico-decoder-{size}.yaml"))
    millions, mebibytes, width = TABLE_4[size]
    parameters = sum(planned.parameters.values())
    assert round(parameters / 1e6) == millions
    query_and_output, key_and_value, feed_forward = 2 * width * width, 2 * width * width // 3, 3 * width * 4 * width
    by_hand = 12 * (query_and_output + key_and_value + feed_forward + 2 * width) + 2 * 50304 * width + width
    assert parameters == by_hand
    assert planned.checkpoint.model_state <= 14 * parameters
    assert planned.checkpoint.model_state / 2**20 <= mebibytes
    assert planned.tokens == 200_000 * 1024 * 2048


def test_flops_by_part_are_those_of_the_convention():
    config = load_config(CONFIGS / "pico-decoder-tiny.yaml")
    planned = plan_run(config)
    assert sum(planned.flops_per_token.values()) == flops_per_token(config.model, 2048)
    assert planned.flops_per_token["head"] == 6 * 96 * 50304
    assert planned.flops_per_token["attention"] == 12 * 12 * 96 * 2048


EVERYTHING = {"learning_dynamics": {"ov_gradients": True, "moments": True}}


@pytest.mark.parametrize(
    "kept", [{}, {"formats": ["huggingface", "pytorch"]}, EVERYTHING], ids=["plain", "formats", "everything"]
)
def test_a_checkpoint_has_the_bytes_that_were_planned(make_config: ConfigMaker, kept: dict[str, Any]):
    config = make_config(checkpointing=kept)
    planned = plan_run(config)
    assert planned.notes == []
    folder = run_training(config, Recording()).run / "checkpoints" / "step_2"
    tensors = {path: sum(t.nbytes for t in load_file(path).values()) for path in folder.rglob("*.safetensors")}
    state = sum(size for path, size in tensors.items() if path.name == "optimizer.safetensors")
    dynamics = sum(size for path, size in tensors.items() if path.parent.name == "learning_dynamics")
    weights = sum(size for path, size in tensors.items() if path.name == "model.safetensors")
    assert (planned.checkpoint.weights, planned.checkpoint.training_state) == (weights, state)
    batches = (8 + 6) * 17 * 8
    assert planned.checkpoint.learning_dynamics - batches == dynamics


def test_momentum_costs_what_it_costs(make_config: ConfigMaker):
    options = {"name": "sgd", "momentum": 0.9}
    config = make_config(training={"optimization": {"optimizer": options}})
    assert optimizer_bytes(config, shape_of(config)) == 4 * sum(plan_run(config).parameters.values())


def test_retention_and_the_disk_are_part_of_the_plan(make_config: ConfigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    all_kept, one_kept = plan_run(make_config()), plan_run(make_config(checkpointing={"keep_training_states": 1}))
    assert all_kept.disk_bytes - one_kept.disk_bytes == 4 * all_kept.checkpoint.training_state
    assert len(storage_sentences(all_kept, tmp_path / "runs")) == 1
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    assert "1000 B are free" in storage_sentences(all_kept, tmp_path / "runs")[1]


def test_a_run_says_what_it_will_store_before_it_starts(make_config: ConfigMaker):
    observer = Recording()
    run_training(make_config(), observer)
    assert any(sentence.startswith("checkpoints at steps 0, 1, 2, 5, 8: about") for sentence in observer.sentences)


def test_the_command_prints_the_plan_and_measures(tmp_path: Path):
    path = tmp_path / "small.yaml"
    path.write_text("model: {d_model: 16, n_layers: 1, vocab_size: 64, max_seq_len: 16, attention_n_heads: 2,"
                    " attention_n_kv_heads: 1, activation_hidden_dim: 32}\n"
                    "data: {dataloader: {batch_size: 4}}\n"
                    "training: {max_steps: 10, optimization: {gradient_accumulation_steps: 2},"
                    " fabric: {precision: 32-true, accelerator: cpu}}\n")  # fmt: skip
    result = CliRunner().invoke(app, ["plan", str(path), "--speed", "64"])
    assert result.exit_code == 0, result.output
    assert "10 steps" not in result.output
    assert "0.2 minutes" in result.output
    facts = json.loads(CliRunner().invoke(app, ["plan", str(path), "--measure", "--json"]).stdout)
    assert facts["tokens"] == 10 * 4 * 16
    assert facts["tokens_per_second"] > 0
    assert facts["hours"] == pytest.approx(facts["tokens"] / facts["tokens_per_second"] / 3600)


def test_sizes_are_in_powers_of_1024():
    assert [in_bytes(size) for size in (5, 2048, 3 * 2**20, 2.5 * 2**30, 2**41)] == [
        "5 B",
        "2 KiB",
        "3.0 MiB",
        "2.5 GiB",
        "2.00 TiB",
    ]
