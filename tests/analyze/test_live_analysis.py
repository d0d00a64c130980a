"""Inside a training the same rows come out as afterwards from disk."""

from __future__ import annotations

from typing import Any

import pytest
from analysis_example import STEPS

from picolm.analyze.config import AnalysisConfig
from picolm.analyze.engine import analyze_run
from picolm.analyze.live import LiveAnalysis
from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.records import table
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot


def config(**settings: Any) -> AnalysisConfig:
    return parse_settings(AnalysisConfig, {"analysis_name": "test", **settings}, "test")


def measured_live(run: RunDirectory, live: LiveAnalysis) -> list[table.Row]:
    rows = []
    for step in STEPS:
        snapshots = {split: open_snapshot(run.checkpoint(step), step, split) for split in ("train", "val")}
        rows += live.measure(step, step * 1000, snapshots)
    return rows


def test_live_rows_equal_those_from_disk(run: RunDirectory) -> None:
    settings = config(
        metrics=["per", "gini", {"cka": {"compare_with": "first"}}, {"cosine": {"compare_with": "previous"}}, "relative_size"],
        components=[
            {"name": "simple", "data_type": ["weights", "activations", "gradients", "updates"], "data_split": "train"},
            {"name": "ov_circuit", "data_type": ["weights", "first_order"], "data_split": "train"},
        ],
    )
    live = measured_live(run, LiveAnalysis(settings, run="small", seed=7))
    folder = run.analyses / "live"
    table.append_rows(folder, live)
    of_live, of_disk = table.read_rows(folder), analyze_run(run, settings)
    assert len(of_live) == len(of_disk) > 200
    columns = [column for column in of_disk.columns if column != "fingerprint"]
    order = list(table.KEY)
    left, right = (rows.sort_values(order, ignore_index=True)[columns] for rows in (of_live, of_disk))
    assert left.equals(right)


def test_only_what_is_compared_with_is_kept(run: RunDirectory) -> None:
    spec = [{"name": "simple", "data_type": "gradients", "data_split": "train"}]
    live = LiveAnalysis(config(metrics=["gini"], components=spec), run="small")
    measured_live(run, live)
    assert live._kept.steps() == []
    live = LiveAnalysis(
        config(metrics=["cosine", {"sign_agreement": {"compare_with": {"step": 0}}}], components=spec), run="small"
    )
    measured_live(run, live)
    assert live._kept.steps() == [0, 20]


def test_what_is_read_is_known_beforehand() -> None:
    components = [{"name": "ov_circuit", "data_type": "first_order", "data_split": "train"}]
    assert LiveAnalysis(config(metrics=["per"], components=components), run="a").reads() == {
        ("", "weights"),
        ("train", "gradients"),
    }


def test_last_step_cannot_be_compared_with_inside_a_training() -> None:
    with pytest.raises(PicoError, match="cka compares with the last step"):
        LiveAnalysis(config(metrics=["cka"], components=[{"name": "simple", "data_type": "activations"}]), run="a")
    with pytest.raises(PicoError, match="all needs the whole run"):
        LiveAnalysis(
            config(metrics=["cka"], compare_with="all", components=[{"name": "simple", "data_type": "activations"}]), run="a"
        )
