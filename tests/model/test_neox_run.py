"""The second architecture through the whole cycle: train, capture, analyse, export; nothing on the way knows its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from picolm.cli.main import app
from picolm.model.contract import load_model
from picolm.records.snapshot import open_snapshot
from picolm.records.table import read_rows

CONFIG = """
data: {dataset: {name: tokens}, dataloader: {batch_size: 2}}
model: {model_type: gpt_neox, vocab_size: 512, max_seq_len: 32, d_model: 32, n_layers: 2, activation_hidden_dim: 48}
training:
  max_steps: 2
  optimization: {gradient_accumulation_steps: 1, lr: 0.01, lr_warmup_steps: 0}
  fabric: {accelerator: cpu, precision: 32-true}
checkpointing:
  run_name: neox
  save_every_n_steps: 1
  learning_dynamics: {layer_suffixes: [attention.v_proj, attention.o_proj, mlp.w_down], eval_data: null, batch_size: 2}
evaluation: {metrics: null}
"""
ANALYSIS = """
analysis_name: circuit
steps: [0, 1]
metrics:
  - metric_name: norm
    norm_type: frobenius
    data_split: train
    components:
      - component_name: ov_circuit
        data_type: weights
        layer_suffixes: {value_layer: attention.v_proj, output_layer: attention.o_proj}
        layers: [0, 1]
"""


def pico(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, (arguments, result.output, result.exception)


def test_a_neox_trains_is_captured_and_has_its_circuits_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"text": f"the {a} sees the {b} and the {b} sees the {a}"}) for a in "abcdefgh" for b in "stuvwxyz"]
    Path("texts.jsonl").write_text("\n".join(lines))
    Path("neox.yaml").write_text(CONFIG)
    Path("analysis.yaml").write_text(ANALYSIS)
    pico("data", "train-tokenizer", "texts.jsonl", "--out", "tokenizer.json", "--vocab-size", "300")
    pico("data", "prepare", "texts.jsonl", "--tokenizer", "tokenizer.json", "--out", "tokens", "--max-seq-len", "32")
    pico("train", "neox.yaml")
    pico("analyze", "runs/neox", "analysis.yaml")
    folder = Path("runs/neox/checkpoints/step_1")
    snapshot = open_snapshot(folder, 1, "train")
    assert snapshot.gradients["layers.1.mlp.w_down"].shape == (32, 48)
    model = load_model(folder)
    rows = read_rows(Path("runs/neox/analysis/circuit"))
    measured = rows[(rows["step"] == 1) & (rows["layer"] == 1) & rows["head"].notna()].set_index("head")["value"]
    assert len(measured) == 4
    attention = model.get_submodule("layers.1.attention")
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        circuit_DD = attention.o_proj.weight[:, part].double() @ attention.v_proj.weight[part].double()
        assert measured[head] == pytest.approx(torch.linalg.matrix_norm(circuit_DD).item(), rel=1e-9)
