"""JSON in the original's layout, Weights & Biases, and following a run that is still being trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from analysis_example import write_checkpoint

from picolm.analyze.config import AnalysisConfig, load_analysis
from picolm.analyze.engine import analyze_run, follow_run
from picolm.analyze.outputs import log_to_wandb
from picolm.analyze.source import FolderSource
from picolm.base.config import parse_settings
from picolm.records import table
from picolm.records.rundir import RunDirectory

ORIGINAL = """
analysis_name: original
steps: {start: 0, end: 20, step: 10}
metrics:
  - metric_name: cka
    data_split: val
    target_checkpoint: 20
    components:
      - {component_name: simple, data_type: activations, layer_suffixes: "swiglu.w_2", layers: [0, 1]}
      - component_name: ov_circuit
        data_type: activations
        layer_suffixes: {value_layer: "attention.v_proj", output_layer: "attention.o_proj"}
        layers: [0]
  - metric_name: norm
    data_split: train
    norm_type: inf
    components:
      - {component_name: simple, data_type: gradients, layer_suffixes: "swiglu.w_2", layers: [0]}
  - metric_name: norm
    data_split: train
    norm_type: frobenius
    components:
      - {component_name: simple, data_type: gradients, layer_suffixes: "swiglu.w_2", layers: [0]}
monitoring: {output_dir: OUTPUT, save_to_wandb: false, wandb: {entity: someone, project: something}}
"""


def config(**settings: Any) -> AnalysisConfig:
    return parse_settings(AnalysisConfig, {"analysis_name": "test", **settings}, "test")


def test_file_of_the_original_writes_its_json_layout(run: RunDirectory, tmp_path: Path) -> None:
    file = tmp_path / "original.yaml"
    file.write_text(ORIGINAL.replace("OUTPUT", str(tmp_path / "results")))
    rows = analyze_run(run, load_analysis(file))
    folder = tmp_path / "results" / "original" / "small"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json")) == [
        f"step_{step}/{name}.json" for step in (0, 10, 20) for name in ("cka", "norm-frobenius", "norm-inf")
    ]
    values = json.loads((folder / "step_10" / "cka.json").read_text())
    assert list(values) == [
        "layers.0.swiglu.w_2.activations",
        "layers.1.swiglu.w_2.activations",
        *(f"layers.0.ov_circuit.activations.heads.{head}" for head in range(4)),
    ]
    row = rows[(rows.step == 10) & (rows.component == "ov_circuit") & (rows["head"] == 3)].iloc[0]
    assert values["layers.0.ov_circuit.activations.heads.3"] == row.value


def test_undefined_values_are_null_in_json(run: RunDirectory, tmp_path: Path) -> None:
    components = [{"ov_circuit": {"layers": [0], "heads": [1]}}]
    monitoring = {"output_dir": str(tmp_path)}
    analyze_run(run, config(steps=[0], metrics=["condition_number"], components=components, monitoring=monitoring))
    content = (tmp_path / "test" / "small" / "step_0" / "condition_number.json").read_text()
    assert json.loads(content) == {"layers.0.ov_circuit.weights.heads.1": None}


def test_values_reach_wandb_against_their_step(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    logged: list[dict[str, Any]] = []

    class Recording:
        def define_metric(self, *arguments: Any, **options: Any) -> None: ...
        def finish(self) -> None: ...
        def log(self, values: dict[str, Any]) -> None:
            logged.append(values)

    monkeypatch.setenv("WANDB_MODE", "offline")
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options) or Recording())
    settings = config(
        metrics=["gini", "condition_number"], components=[{"ov_circuit": {"layers": [0], "heads": [0]}}], steps=[0, 20]
    )
    sentences: list[str] = []
    rows = analyze_run(run, settings)
    log_to_wandb(
        rows, run="small", analysis="test", config=settings.monitoring.wandb, folder=tmp_path / "fresh", say=sentences.append
    )
    assert asked[0]["mode"] == "offline" and asked[0]["name"] == "small-test"
    assert [set(values) for values in logged] == [{"step", "gini/layers.0.ov_circuit.weights.heads.0"}] * 2
    assert [values["step"] for values in logged] == [0, 20]
    assert "offline" in sentences[0]


def test_following_takes_each_checkpoint_when_it_comes_and_ends_with_the_run(run: RunDirectory) -> None:
    run.write_identity({"name": "small", "max_steps": 40})
    to_come = [30, 40]
    settings = config(metrics=["gini", "cka"], components=[{"name": "simple", "data_type": ["weights", "activations"]}])
    source = FolderSource(run)
    results = list(follow_run(source, settings, wait=lambda: write_checkpoint(run, to_come.pop(0))))
    assert [result.computed for result in results] == [36, 12, 12 + 5 * 6]
    assert set(results[-1].rows[results[-1].rows.metric == "cka"].partner) == {"step=40"}
    assert len(table.read_rows(run.analysis("test"))) == len(results[-1].rows) == 5 * 18


def test_following_ends_when_the_wanted_steps_are_there(run: RunDirectory) -> None:
    run.write_identity({"name": "small", "max_steps": 1000})
    settings = config(metrics=["gini"], components=["simple"], steps=[0, 20, 30])
    results = list(follow_run(FolderSource(run), settings, wait=lambda: write_checkpoint(run, 30)))
    assert [sorted(set(result.rows.step)) for result in results] == [[0, 20], [0, 20, 30]]


def test_following_waits_for_the_step_compared_with(run: RunDirectory) -> None:
    run.write_identity({"name": "small", "max_steps": 30})
    components = [{"simple": {"data_type": "activations", "layer_suffixes": "swiglu.w_2"}}]
    settings = config(metrics=[{"cka": {"target_checkpoint": 30}}], components=components)
    before, after = list(follow_run(FolderSource(run), settings, wait=lambda: write_checkpoint(run, 30)))
    assert set(before.rows.note) == {"small has no checkpoint of step 30"}
    assert after.rows.value.notna().all() and len(after.rows) == len(table.read_rows(run.analysis("test"))) == 8
