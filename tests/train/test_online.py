"""Analysis inside the loop: the values of `pico analyze`, at steps that keep no tensors, without touching the training."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import picolm
from picolm.base.errors import PicoError
from picolm.records import table
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, file_hashes, weights

ANALYSIS = """
analysis_name: inside
metrics:
  - per
  - hoyer
  - {name: norm, norm_type: nuclear}
  - {name: relative_size, compare_with: beside, components: [{name: simple, data_type: updates, data_split: train}]}
  - {name: cka, compare_with: previous, components: [{name: simple, data_type: activations, data_split: val}]}
  - {name: cosine, compare_with: first, components: [{name: simple, data_type: [weights, gradients], data_split: train}]}
components:
  - {name: simple, data_type: [weights, gradients], data_split: train}
  - {name: simple, data_type: [activations, gradients], data_split: val}
  - {name: ov_circuit, data_type: [weights, first_order, gradients], data_split: train}
"""
MEASURES = ["metric", "options", "component", "data_type", "split", "part", "layer", "head", "partner"]
SAYS = ["value", "null", "n", "dtype", "estimator", "note", "tokens", "seed", "variant", "run"]


@pytest.fixture
def analysis(tmp_path: Path) -> str:
    path = tmp_path / "inside.yaml"
    path.write_text(ANALYSIS)
    return str(path)


def online(file: str, every: int) -> dict[str, object]:
    return {"online_analysis": {"file": file, "every": every}}


def rows_of(run: Path, name: str = "inside") -> pandas.DataFrame:
    return table.read_rows(run / "analysis" / name).sort_values(["step", *MEASURES], ignore_index=True)


def test_every_value_is_the_one_that_is_computed_afterwards(make_config: ConfigMaker, analysis: str):
    """Both at every second step: once inside the loop, once from the checkpoints."""
    kept = {"steps": [0, 2, 4, 6, 8], "learning_dynamics": {"ov_gradients": True}}
    run = run_training(make_config(training=online(analysis, 2), checkpointing=kept), Recording()).run
    inside = rows_of(run)
    afterwards = picolm.analyze(run, analysis).sort_values(["step", *MEASURES], ignore_index=True)
    assert set(inside["step"]) == {0, 2, 4, 6, 8}
    assert set(inside["fingerprint"]).isdisjoint(afterwards["fingerprint"])
    pandas.testing.assert_frame_equal(
        inside[["step", *MEASURES, *SAYS]], afterwards[["step", *MEASURES, *SAYS]], check_exact=True
    )
    assert inside["value"].notna().sum() > 400
    assert len(rows_of(run)) == len(inside)  # one table: the later row of a key counts


def test_training_is_bit_identical_with_it_on_or_off(make_config: ConfigMaker, analysis: str):
    measured = run_training(make_config("measured", training=online(analysis, 1)), Recording()).run
    alone = run_training(make_config("alone"), Recording()).run
    assert all_equal(weights(measured, 8), weights(alone, 8))
    for step in (0, 1, 2, 5, 8):
        assert file_hashes(measured, step) == file_hashes(alone, step)
    assert set(rows_of(measured)["step"]) == set(range(9))


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one_but_for_what_compares_with_the_step_before(
    make_config: ConfigMaker, analysis: str
):
    settings = {"training": online(analysis, 1), "checkpointing": {"steps": [0, 4]}}
    whole = run_training(make_config("whole", **settings), Recording()).run
    config = make_config("parts", **settings)
    assert not run_training(config, Recording(stop_at=3)).complete
    run = run_training(config, Recording()).run
    told = ["step", *MEASURES, *SAYS[:-1]]
    continued, uninterrupted = (rows_of(path)[told] for path in (run, whole))
    gone = (uninterrupted["step"] == 3) & (uninterrupted["partner"] == "step=previous")  # step 2 was only in memory
    assert continued[gone]["note"].str.contains("no checkpoint of step 2").all()
    pandas.testing.assert_frame_equal(continued[~gone], uninterrupted[~gone], check_exact=True)


def test_it_works_without_snapshots_and_stores_no_tensors(make_config: ConfigMaker, tmp_path: Path):
    file = tmp_path / "weights.yaml"
    file.write_text(
        "analysis_name: inside\nmetrics: [per]\ndata_split: train\ncomponents: [{name: simple, data_type: gradients}]\n"
    )
    off = {"learning_dynamics": {"enabled": False}, "steps": [0]}
    run = run_training(make_config(training=online(str(file), 3), checkpointing=off), Recording()).run
    rows = rows_of(run)
    assert set(rows["step"]) == {0, 3, 6}
    assert rows["value"].between(0, 1).all()
    assert not list(run.rglob("learning_dynamics"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: [cka]\ncomponents: [{name: simple, data_type: activations}]", "only known at the end"),
        ("metrics: [per]\nsteps: [1, 3]\ncomponents: [{name: simple}]", "none of its steps is a multiple of 2"),
        (
            "metrics: [{name: cka, target_checkpoint: 3}]\ncomponents: [{name: simple, data_type: activations}]",
            "step 3 is compared",
        ),
    ],
)
def test_what_cannot_be_measured_inside_the_loop_is_an_error_at_the_start(
    make_config: ConfigMaker, tmp_path: Path, text: str, message: str
):
    file = tmp_path / "wrong.yaml"
    file.write_text(f"analysis_name: wrong\n{text}\n")
    with pytest.raises(PicoError, match=message):
        run_training(make_config("wrong", training=online(str(file), 2)), Recording())
    assert not (tmp_path / "runs" / "wrong").exists()
