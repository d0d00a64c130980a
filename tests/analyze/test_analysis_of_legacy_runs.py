"""The original's analysis file runs unchanged on a folder of the original trainer and gives what ours gives there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from legacy_example import write_original_folder

from picolm.analyze.config import load_analysis
from picolm.analyze.engine import run_analysis
from picolm.analyze.source import open_source
from picolm.base.errors import PicoError

ORIGINAL = """
analysis_name: theirs
steps: {start: 0, end: 100, step: 100}
metrics:
  - metric_name: pwcca
    data_split: val
    target_checkpoint: 100
    components:
      - {component_name: simple, data_type: activations, layer_suffixes: "swiglu.w_2", layers: [0, 1]}
  - metric_name: per
    data_split: train
    components:
      - component_name: ov_circuit
        data_type: weights
        layer_suffixes: {value_layer: "attention.v_proj", output_layer: "attention.o_proj"}
        layers: [1]
      - {component_name: simple, data_type: gradients, layer_suffixes: "attention.o_proj", layers: [0]}
"""


def test_their_file_runs_on_their_folder(tmp_path: Path) -> None:
    weights = write_original_folder(tmp_path / "pico-decoder-mini")
    file = tmp_path / "analysis.yaml"
    file.write_text(ORIGINAL)
    source = open_source(tmp_path / "pico-decoder-mini")
    rows = run_analysis(source, load_analysis(file)).rows
    assert len(rows) == 2 * (2 + 4 + 1)
    assert set(rows.run) == {"pico-decoder-mini"}
    assert set(rows.tokens) == {0, 100 * 8 * 64}
    circuit = rows[(rows.component == "ov_circuit") & (rows.step == 100) & (rows["head"] == 3)].iloc[0]
    value, output = (weights[100][f"layers.1.attention.{part}.weight"].double().numpy() for part in ("v_proj", "o_proj"))
    sigma = np.linalg.svd(output[:, 12:16] @ value[4:8], compute_uv=False)
    share = sigma[:4] / sigma[:4].sum()
    assert circuit.value == pytest.approx(np.exp(-(share * np.log(share)).sum()) / 16, rel=1e-9)
    assert rows[rows.data_type == "gradients"].note.str.startswith("gradient as the original trainer stores it").all()
    weights_notes = rows[rows.data_type == "weights"].note
    assert set(weights_notes[rows.component == "ov_circuit"]) == {"rank at most 4 of 16 by construction"}  # a head of width 4
    assert (weights_notes[rows.component != "ov_circuit"] == "").all()
    assert run_analysis(source, load_analysis(file)).computed == 0


def test_changed_file_is_measured_again(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "mini")
    file = tmp_path / "analysis.yaml"
    file.write_text("{analysis_name: a, metrics: [gini], components: [{simple: {data_type: gradients, data_split: train}}]}")
    first = run_analysis(open_source(tmp_path / "mini"), load_analysis(file))
    gradients = tmp_path / "mini" / "checkpoints" / "step_0" / "learning_dynamics" / "train_gradients.pt"
    torch.save({name: tensor + 1 for name, tensor in torch.load(gradients).items()}, gradients)
    second = run_analysis(open_source(tmp_path / "mini"), load_analysis(file))
    assert (first.computed, second.computed) == (12, 6)


def test_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PicoError, match="not a run folder"):
        open_source(tmp_path)
