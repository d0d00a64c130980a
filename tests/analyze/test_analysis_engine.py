"""The engine: every row there once, right, labelled, and computed only if missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysis_example import STEPS, write_checkpoint

from picolm.analyze import engine, measure, null, source
from picolm.analyze.config import AnalysisConfig, load_analysis
from picolm.analyze.engine import analyze_run, run_analysis
from picolm.analyze.metrics.contract import METRICS
from picolm.analyze.source import FolderSource
from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot


def config(**settings: Any) -> AnalysisConfig:
    return parse_settings(AnalysisConfig, {"analysis_name": "test", **settings}, "test")


def test_rows_are_labelled_with_all_that_is_needed_to_believe_them(run: RunDirectory) -> None:
    rows = analyze_run(run, config(metrics=["per"], components=[{"simple": {"layer_suffixes": ["swiglu.w_2"]}}]))
    assert len(rows) == len(STEPS) * 2
    row = rows.iloc[0]
    assert (row.run, row.seed, row.step, row.tokens, row.split) == ("small", 7, 0, 0, "")
    assert (row.component, row.part, row.layer, row.metric, row.options) == ("simple", "swiglu.w_2", 0, "per", "{}")
    assert (row.n, row["dtype"], row.estimator) == (32, "float32", "eigenvalues")
    assert row.null == pytest.approx(row.value, abs=0.05)


def test_values_equal_those_of_independent_code(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "gradients", "data_split": "train", "layer_suffixes": ["attention.v_proj"]}
    rows = analyze_run(run, config(steps=[10], metrics=["per", {"norm": {"norm_type": "nuclear"}}], components=[spec]))
    gradient = open_snapshot(run.checkpoint(10), 10, "train").gradients["layers.1.attention.v_proj"].double().numpy()
    sigma = np.linalg.svd(gradient, compute_uv=False)
    share = sigma / sigma.sum()
    of_layer = rows[rows.layer == 1].set_index("metric")["value"]
    assert of_layer["per"] == pytest.approx(np.exp(-(share * np.log(share)).sum()) / 16, rel=1e-12)
    assert of_layer["norm"] == pytest.approx(sigma.sum(), rel=1e-12)


def test_similarity_is_to_the_target_step_and_one_there(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "activations", "layer_suffixes": ["swiglu.w_2"]}
    rows = analyze_run(run, config(metrics=[{"cka": {"target_checkpoint": 10}}], components=[spec]))
    assert set(rows.partner) == {"step=10"}
    assert rows[rows.step == 10].value.tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
    assert (rows[rows.step != 10].value < 0.9).all()
    assert rows.n.tolist() == [24] * 6


def test_target_defaults_to_the_last_chosen_step(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "activations"}
    rows = analyze_run(run, config(steps=[0, 10], metrics=["cka"], components=[spec]))
    assert set(rows.partner) == {"step=10"}


def test_two_metrics_of_one_name_never_overwrite_each_other(run: RunDirectory) -> None:
    norms = [{"name": "norm", "norm_type": kind} for kind in ("frobenius", "nuclear", "inf", "max", "spectral", "one")]
    rows = analyze_run(run, config(steps=[0], metrics=norms, components=["simple"]))
    assert len(rows) == 6 * 6
    assert len(set(rows.options)) == 6


def test_second_time_nothing_is_computed(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(metrics=["gini", "cka"], components=[{"name": "simple", "data_type": ["weights", "activations"]}])
    first = run_analysis(FolderSource(run), settings)
    monkeypatch.setattr(measure, "_measure_piece", lambda *arguments: pytest.fail("computed again"))
    second = run_analysis(FolderSource(run), settings)
    assert (first.computed, second.computed) == (len(first.rows), 0)
    assert second.rows.equals(first.rows)


def test_only_what_is_new_is_computed(run: RunDirectory) -> None:
    run_analysis(FolderSource(run), config(steps=[0, 10], metrics=["gini"], components=["simple"]))
    more_steps = run_analysis(FolderSource(run), config(metrics=["gini"], components=["simple"]))
    more_metrics = run_analysis(FolderSource(run), config(metrics=["gini", "hoyer"], components=["simple"]))
    assert (more_steps.computed, more_metrics.computed) == (6, 18)
    assert len(more_metrics.rows) == 36


def test_settings_ask_only_for_their_own_rows(run: RunDirectory) -> None:
    run_analysis(FolderSource(run), config(metrics=["gini", "hoyer"], components=["simple"]))
    rows = analyze_run(run, config(steps=[0], metrics=["gini"], components=["simple"]))
    assert (set(rows.metric), set(rows.step), len(rows)) == ({"gini"}, {0}, 6)


def test_what_was_not_captured_is_a_row_with_the_reason(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "updates", "data_split": "train"}
    rows = analyze_run(run, config(metrics=["gini"], components=[spec]))
    last = rows[rows.step == STEPS[-1]]
    assert last.value.isna().all()
    assert len(last) == 6
    assert set(last.note) == {"no update was applied after this step: it is the last of the run"}
    assert rows[rows.step != STEPS[-1]].value.notna().all()


def test_step_without_learning_dynamics_still_has_its_rows(run: RunDirectory) -> None:
    write_checkpoint(run, 30, captured=False)
    rows = analyze_run(run, config(steps=[20, 30], metrics=["cka"], components=[{"name": "simple", "data_type": "activations"}]))
    assert rows.value.isna().all()
    assert set(rows[rows.step == 30].note) == {"no learning dynamics of split val were captured at this step"}


def test_layers_and_heads_restrict(run: RunDirectory) -> None:
    rows = analyze_run(run, config(steps=[0], metrics=["per"], components=[{"ov_circuit": {"layers": [1], "heads": [0, 3]}}]))
    assert [(row.layer, row.head) for row in rows.itertuples()] == [(1, 0), (1, 3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": [{"simple": {"layers": [7]}}], "metrics": ["per"]}, "there is no layer 7"),
        ({"components": [{"ov_circuit": {"heads": [4]}}], "metrics": ["per"]}, "there is no head 4"),
        ({"components": [{"simple": {"layer_suffixes": "attention.w_proj"}}], "metrics": ["per"]}, "matches no layer"),
        ({"components": ["simple"], "metrics": ["per"], "steps": [5]}, "step 5 has no checkpoint"),
        (
            {"components": [{"simple": {"data_type": "activations"}}], "metrics": [{"cka": {"target_checkpoint": 5}}]},
            "target_checkpoint: step 5 has no checkpoint",
        ),
    ],
)
def test_selection_of_nothing_is_an_error_and_writes_nothing(run: RunDirectory, settings: Any, message: str) -> None:
    with pytest.raises(PicoError) as caught:
        analyze_run(run, config(**settings))
    assert message in caught.value.message
    assert not run.analyses.exists()


def test_damaged_checkpoint_is_refused_by_name(run: RunDirectory) -> None:
    weights = run.checkpoint(0) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PicoError, match=r"model.safetensors has changed"):
        analyze_run(run, config(metrics=["per"], components=["simple"]))


def test_snapshots_are_opened_once_and_one_decomposition_serves_all(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, str]] = []
    decomposed = []
    real_open, real_svd, real_eigen = source.open_snapshot, torch.linalg.svdvals, torch.linalg.eigvalsh

    def counting_open(folder: Any, step: int, split: str) -> Any:
        opened.append((step, split))
        return real_open(folder, step, split)

    monkeypatch.setattr(source, "open_snapshot", counting_open)
    monkeypatch.setattr(torch.linalg, "svdvals", lambda matrix: decomposed.append(0) or real_svd(matrix))
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: decomposed.append(0) or real_eigen(matrix))
    monkeypatch.setattr(engine, "usable_cores", lambda: 1)
    null._of_gaussian_product.cache_clear()
    metrics = ["per", "effective_rank", "condition_number", {"norm": {"norm_type": "nuclear"}}]
    analyze_run(run, config(metrics=metrics, components=["simple", "ov_circuit"]))
    assert opened == [(0, "val"), (10, "val"), (20, "val")]
    assert len(decomposed) == 3 * (6 + 8) + 2 * null.DRAWS


def test_several_workers_give_the_rows_of_one(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    one = analyze_run(run, load_analysis("table5"))
    monkeypatch.setattr(engine, "usable_cores", lambda: 3)
    settings = load_analysis("table5").model_copy(update={"analysis_name": "again"})
    three = analyze_run(run, settings)
    assert three.drop(columns="value").equals(one.drop(columns="value"))
    assert np.allclose(three.value, one.value, rtol=1e-12, equal_nan=True)
    assert torch.get_num_threads() == threads


def test_table5_applies_all_seven_metrics_where_the_table_allows(run: RunDirectory) -> None:
    rows = analyze_run(run, load_analysis("table5"))
    assert {"cka", "pwcca", "condition_number", "per", "gini", "hoyer", "norm"} <= set(rows.metric)
    assert set(rows[rows.metric == "per"].data_type) == {"weights", "gradients", "first_order"}
    assert set(rows[rows.metric == "pwcca"].data_type) == {"activations"}
    assert {"weights", "activations", "gradients"} <= set(rows[rows.metric == "gini"].data_type)
    assert rows[rows.value.isna()].note.str.len().gt(0).all()
    assert np.isfinite(rows.value.dropna()).all()


def test_progress_reaches_its_end(run: RunDirectory) -> None:
    seen: list[tuple[int, int]] = []
    analyze_run(
        run, config(metrics=["gini"], components=["simple"]), progress=lambda done, total, text: seen.append((done, total))
    )
    assert seen[-1] == (18, 18)


def test_partner_from_the_step_before(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "gradients", "data_split": "train", "layer_suffixes": ["swiglu.w_2"], "layers": [0]}
    rows = analyze_run(run, config(metrics=["cosine", "sign_agreement"], components=[spec]))
    assert set(rows.partner) == {"step=previous"}
    assert set(rows[rows.step == 0].note) == {"the first of the chosen steps has none before it"}
    before, now = (open_snapshot(run.checkpoint(step), step, "train").gradients["layers.0.swiglu.w_2"] for step in (10, 20))
    expected = torch.nn.functional.cosine_similarity(before.flatten().double(), now.flatten().double(), dim=0)
    assert rows[(rows.step == 20) & (rows.metric == "cosine")].value.item() == pytest.approx(float(expected), rel=1e-12)


def test_partner_from_another_layer_and_from_another_run(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path / "runs" / "sibling")
    other.write_identity({"name": "sibling"})
    for step in (0, 10):
        write_checkpoint(other, step)
    spec = {"name": "simple", "data_type": "activations", "layer_suffixes": ["swiglu.w_2"]}
    targets = [{"layer": 1}, {"run": str(other.path)}, {"run": str(other.path), "step": 10}]
    rows = analyze_run(run, config(metrics=[{"cka": {"compare_with": target}} for target in targets], components=[spec]))
    assert set(rows.partner) == {"layer=1", "run=sibling", "run=sibling,step=10"}
    own_layer = rows[(rows.partner == "layer=1") & (rows.layer == 1)]
    assert own_layer.value.tolist() == pytest.approx([1.0] * 3)
    same_step = rows[(rows.partner == "run=sibling") & (rows.step != 20)]
    assert same_step.value.tolist() == pytest.approx([1.0] * 4)  # written from the same seeds
    assert set(rows[(rows.partner == "run=sibling") & (rows.step == 20)].note) == {"sibling has no checkpoint of step 20"}
    assert (rows[(rows.partner == "layer=1") & (rows.layer == 0)].value < 0.9).all()


def test_partner_beside(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "updates", "data_split": "train", "layer_suffixes": ["swiglu.w_2"]}
    circuits = {"name": "ov_circuit", "data_type": "updates", "data_split": "train"}
    rows = analyze_run(run, config(steps=[0], metrics=["relative_size"], components=[spec, circuits]))
    assert set(rows.partner) == {"beside"}
    assert rows[rows.component == "simple"].value.tolist() == pytest.approx([1e-4, 1e-4], rel=0.1)
    assert rows.value.notna().all()


def test_layer_to_compare_with_must_exist(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "activations"}
    with pytest.raises(PicoError, match="compare_with: there is no layer 5"):
        analyze_run(run, config(metrics=[{"cka": {"compare_with": {"layer": 5}}}], components=[spec]))


def test_every_metric_runs_where_it_is_accepted_and_says_why_where_it_is_undefined(run: RunDirectory) -> None:
    names = [entry.name for entry in METRICS.entries() if entry.name != "norm"]
    data_types = ["weights", "activations", "gradients", "updates"]
    components = [{"name": "simple", "data_type": data_types, "data_split": "train"}]
    components += [{"name": "ov_circuit", "data_type": [*data_types, "first_order"], "data_split": "train"}]
    rows = analyze_run(run, config(steps=[0, 10], metrics=names, components=components))
    assert set(rows.metric) == set(names)
    assert rows[rows.value.isna()].note.str.len().gt(0).all()
    with_null = set(rows[rows.null.notna()].metric)
    assert {"gini", "hoyer", "per", "cka", "pwcca", "stable_rank", "cosine", "mutual_knn", "kurtosis"} <= with_null


def test_every_step_with_every_step(run: RunDirectory) -> None:
    spec = {"name": "simple", "data_type": "activations", "layer_suffixes": ["swiglu.w_2"], "layers": [0]}
    rows = analyze_run(run, config(metrics=[{"cka": {"compare_with": "all"}}], components=[spec]))
    table = rows.pivot(index="step", columns="partner", values="value").to_numpy()
    assert table.shape == (3, 3)
    assert np.allclose(table, table.T)
    assert np.allclose(np.diag(table), 1)


def test_error_in_ones_own_metric_says_where(run: RunDirectory, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def broken(matrix_MN):\n    return matrix_MN[999, 999]\n")
    with pytest.raises(IndexError) as caught:
        analyze_run(run, config(metrics=[f"{file}:broken"], components=["simple"], steps=[10]))
    assert caught.value.__notes__ == [f"while measuring {file}:broken on ('attention.o_proj', 0, None) of step 10"]
