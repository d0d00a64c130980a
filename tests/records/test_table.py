from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from picolm.base.errors import PicoError
from picolm.records import trainlog
from picolm.records.evaluation import Score, read_scores, write_scores
from picolm.records.names import expand_patterns, matches, natural_order, split_name
from picolm.records.rundir import RunDirectory, check_run_name, open_run_directory
from picolm.records.table import Row, append_rows, read_rows

ROW = Row(run="r", step=4, data_type="weights", component="simple", part="swiglu.w_2", metric="gini", value=0.5, layer=1)


def test_rows_come_back_as_written(tmp_path: Path):
    append_rows(tmp_path, [ROW, replace(ROW, layer=None, value=None, note="all zero")])
    frame = read_rows(tmp_path)
    assert frame.loc[0, "value"] == 0.5
    assert frame["layer"].isna().tolist() == [False, True]
    assert frame.loc[1, "note"] == "all zero"


def test_of_two_rows_with_one_key_the_newer_counts(tmp_path: Path):
    append_rows(tmp_path, [ROW, replace(ROW, layer=2)])
    append_rows(tmp_path, [replace(ROW, value=0.75)])
    frame = read_rows(tmp_path)
    assert len(frame) == 2
    assert frame.set_index("layer").loc[1, "value"] == 0.75


def test_metrics_that_differ_only_in_options_do_not_overwrite_each_other(tmp_path: Path):
    append_rows(tmp_path, [replace(ROW, options='{"norm_type":"nuclear"}'), replace(ROW, options='{"norm_type":"frobenius"}')])
    assert len(read_rows(tmp_path)) == 2


def test_a_table_that_does_not_exist_is_empty_with_columns(tmp_path: Path):
    frame = read_rows(tmp_path / "none")
    assert frame.empty
    assert "metric" in frame.columns


def test_scores_of_one_evaluation_are_replaced_and_others_kept(tmp_path: Path):
    run = RunDirectory(tmp_path / "r")
    write_scores(run, 10, 80, [Score("blimp", "accuracy", 0.5), Score("perplexity", "perplexity", 9.0)], {"blimp": {"hash": "a"}})
    write_scores(run, 10, 80, [Score("blimp", "accuracy", 0.75)], {"blimp": {"hash": "b"}})
    write_scores(run, 2, 16, [Score("blimp", "accuracy", 0.25)], {})
    frame = read_scores(run)
    assert frame["step"].tolist() == [2, 10, 10]
    assert frame.set_index(["step", "evaluation"])["value"].to_dict() == {
        (2, "blimp"): 0.25,
        (10, "perplexity"): 9.0,
        (10, "blimp"): 0.75,
    }


def test_a_log_line_cut_short_is_passed_over_and_rows_after_a_step_can_be_cut(tmp_path: Path):
    path = tmp_path / "logs" / "train.jsonl"
    for step in (1, 2, 3):
        trainlog.append_row(path, {"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in trainlog.read_rows(path)] == [1, 2, 3]
    trainlog.cut_after(path, 2)
    assert [row["step"] for row in trainlog.read_rows(path)] == [1, 2]


def test_a_suffix_matches_whole_pieces_of_a_name():
    assert matches("layers.0.attention.v_proj", "attention.v_proj")
    assert not matches("layers.0.cross_attention.v_proj", "attention.v_proj")
    assert matches("layers.11.swiglu.w_2", "layers.*.swiglu.w_?")


def test_a_layer_that_matches_nothing_is_an_error_with_a_suggestion():
    names = ["layers.0.attention.v_proj", "layers.0.swiglu.w_2"]
    with pytest.raises(PicoError, match=r"did you mean `attention\.v_proj`"):
        expand_patterns(["attention.vproj"], names, "layer_suffixes")


def test_layer_ten_comes_after_layer_two():
    names = [f"layers.{layer}.swiglu.w_2" for layer in (10, 2, 0)]
    assert [split_name(name).layer for name in sorted(names, key=natural_order)] == [0, 2, 10]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".x", "a..b", "x.lock", "x" * 97, "a b"])
def test_a_run_name_must_be_a_folder_a_branch_and_a_tag(name: str):
    with pytest.raises(PicoError, match="not a run name"):
        check_run_name(name)


def test_a_folder_that_is_no_run_is_explained_with_its_neighbours(tmp_path: Path):
    RunDirectory(tmp_path / "demo").write_identity({"name": "demo"})
    with pytest.raises(PicoError, match="did you mean `demo`"):
        open_run_directory(tmp_path / "demos")
