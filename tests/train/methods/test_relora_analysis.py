"""Both arms in one analysis: the same names, and the rows of low-rank updates say what they are."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import picolm
from picolm.analyze.matrix import Matrix
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot
from picolm.testing.tiny import merged, training_content
from picolm.train.config import parse_config
from picolm.train.train import run_training

from ..recording import Recording
from .relora_runs import train_relora

ANALYSIS = """
analysis_name: updates
metrics: [condition_number, per]
components:
  - {name: simple, data_type: [updates, gradients], data_split: train}
steps: [1, 5]
"""


@pytest.fixture(scope="module")
def low_rank(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    changes = {"checkpointing": {"steps": [1, 5, 6]}}
    return train_relora(tiny_data, tmp_path_factory.mktemp("runs"), "low", changes, rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def plain(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    content = merged(training_content(tiny_data, tmp_path_factory.mktemp("runs"), "plain"), {"checkpointing": {"steps": [1, 5]}})
    return RunDirectory(run_training(parse_config(content, "tiny.yaml", default_name="plain"), Recording()).run)


def test_rows_of_low_rank_updates_say_so_and_those_of_plain_ones_do_not(
    tmp_path: Path, low_rank: RunDirectory, plain: RunDirectory
):
    analysis = tmp_path / "updates.yaml"
    analysis.write_text(ANALYSIS)
    low, full = (picolm.analyze(run.path, str(analysis)) for run in (low_rank, plain))
    assert key(low) == key(full)
    assert not full["note"].str.contains("construction").any()
    updates, gradients = low[low["data_type"] == "updates"], low[low["data_type"] == "gradients"]
    assert not gradients["note"].str.contains("construction").any()
    limited = updates[updates["note"].str.contains("rank at most 4 by construction")]
    assert set(limited["step"]) == {5}  # step 1 belongs to the warm start
    assert set(limited["part"]) == {"attention.v_proj", "attention.o_proj", "swiglu.w_2"}
    assert limited["note"].str.contains("numerical rank 4 of").all()


def test_a_snapshot_knows_the_largest_rank_of_its_updates(low_rank: RunDirectory):
    first, later, merging = (open_snapshot(low_rank.checkpoint(step), step, "train") for step in (1, 5, 6))
    assert "update_ranks" not in first.info
    assert "update_ranks" not in merging.info  # a merge rounds the weights, in every direction
    assert later.info["update_ranks"].keys() == later.updates.keys()
    for name, limit in later.info["update_ranks"].items():
        update = later.updates[name]
        assert Matrix(lambda stored=update: stored).numerical_rank <= limit == 4


def key(rows: pandas.DataFrame) -> set[tuple[object, ...]]:
    """What the rows are about, run and value aside."""
    columns = ["step", "split", "data_type", "component", "part", "layer", "metric"]
    return {tuple(row) for row in rows[columns].astype(str).itertuples(index=False)}
