"""Series of run folders, and the numbers they are reduced to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.study.synthetic import Runs, losses_apart, study

from picolm.base.errors import PicoError
from picolm.records.evaluation import Score, write_scores
from picolm.records.rundir import RunDirectory
from picolm.records.table import Row, append_rows
from picolm.study.matrix import Cell
from picolm.study.measures import measure_table, measured
from picolm.study.reductions import reduce_measure
from picolm.study.series import RunFiles
from picolm.study.spec_measures import MeasureConfig

LOSSES = [5.0, 4.0, 3.5, 3.6, 3.0]


@pytest.fixture
def files(tmp_path):
    """A run of 50 steps, logged every 10, 100 tokens a step; a merge at step 30."""
    runs = Runs(
        study(),
        tmp_path,
        losses_apart(0.1),
        curve=lambda variant, seed: LOSSES,
        columns=lambda variant, seed: {"merged": [0, 0, 1, 0, 0], "method_tokens": [0, 10, 20, 40, 80]},
    )
    cell = runs.cell("plain", 11, "confirm")
    rows = [
        Row("r", step, "weights", "simple", "attention.v_proj", "per", 0.1 * layer + step / 1000, layer=layer, tokens=step * 100)
        for step in (0, 50)
        for layer in (0, 1)
    ]
    append_rows(cell.run.analysis("table5"), [*rows, Row("r", 50, "gradients", "simple", "x", "per", None, note="zero")])
    scores = [Score("blimp", "accuracy", 0.5), Score("blimp", "accuracy", 0.7, group="syntax"), Score("blimp", "n", None)]
    write_scores(cell.run, 0, 0, scores, {})
    return RunFiles(cell.run)


def value(files, **settings):
    return reduce_measure(MeasureConfig(**({"series": "train.loss"} | settings)), files).value


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reduce": "last"}, 3.0),
        ({"reduce": "first"}, 5.0),
        ({"reduce": "min"}, 3.0),
        ({"reduce": "max"}, 5.0),
        ({"reduce": "max", "from_step": 20}, 4.0),
        ({"reduce": "mean"}, 3.82),
        ({"reduce": "median"}, 3.6),
        ({"reduce": "mean_last", "k": 2}, 3.3),
        ({"reduce": "at", "step": 20}, 4.0),
        ({"reduce": "auc"}, (4.5 + 3.75 + 3.55 + 3.3) / 4),
        ({"reduce": "slope", "x": "step"}, np.polyfit([10, 20, 30, 40, 50], LOSSES, 1)[0]),
        ({"reduce": "tokens_to", "level": 3.75}, 2500.0),
        ({"reduce": "tokens_to", "level": 6.0}, 1000.0),
        ({"reduce": "tokens_to", "level": 4.5, "better": "higher"}, 1000.0),
        ({"reduce": "tokens_to", "level": 3.55, "smooth": 3}, 4500.0),
        ({"reduce": "tokens_to", "level": 3.75, "x": "train.method_tokens"}, 15.0),
        ({"reduce": "jump_at", "events": {"steps": [30]}, "window": 2}, 3.3 - 3.75),
        ({"reduce": "jump_at", "events": {"series": "train.merged"}, "window": 2}, 3.3 - 3.75),
        ({"reduce": "jump_at", "events": {"every": 20}, "window": 1}, ((3.5 - 4.0) + (3.0 - 3.6)) / 2),
    ],
)
def test_each_reduction_is_what_one_computes_by_hand(files, settings, expected):
    assert value(files, **settings) == pytest.approx(expected)


def test_the_area_over_log_tokens_weighs_early_losses_more(files):
    x = np.log([1000, 2000, 3000, 4000, 5000])
    expected = sum((x[i + 1] - x[i]) * (LOSSES[i] + LOSSES[i + 1]) / 2 for i in range(4)) / (x[-1] - x[0])
    assert value(files, reduce="auc", x="log_tokens") == pytest.approx(expected)
    assert value(files, reduce="auc", x="log_tokens") > value(files, reduce="auc")


def test_a_level_that_is_never_reached_is_censored_at_the_end_of_the_run(files):
    found = reduce_measure(MeasureConfig(series="train.loss", reduce="tokens_to", level=1.0), files)
    assert found.censored and found.value == 5000 == found.end and "not reached" in found.note


def test_a_number_that_does_not_exist_says_why(files):
    found = reduce_measure(MeasureConfig(series="train.loss", reduce="at", step=25), files)
    assert found.value is None and "10, 20, 30" in found.note
    assert "5 values, 9 are asked for" in reduce_measure(MeasureConfig(series="train.loss", reduce="mean_last", k=9), files).note


def test_analysis_rows_are_averaged_over_what_is_left(files):
    where = {"metric": "per", "data_type": "weights"}
    assert value(files, series="analysis.table5", where=where) == pytest.approx(0.05 + 0.05)
    assert value(files, series="analysis.table5", where=where | {"layer": 1}) == pytest.approx(0.15)
    assert value(files, series="analysis.table5", where=where | {"layer": (0, 1)}, reduce="first") == pytest.approx(0.05)


def test_scores_are_those_of_the_whole_unless_a_group_is_named(files):
    assert value(files, series="evaluation.blimp.accuracy") == 0.5
    assert value(files, series="evaluation.blimp.accuracy", where={"group": "syntax"}) == 0.7


def test_facts_of_a_run_are_measures_too(files):
    facts = {name: value(files, series=f"run.{name}") for name in ("parameters", "tokens", "steps", "seconds", "flops")}
    assert facts == {"parameters": 1000, "tokens": 5000, "steps": 50, "seconds": 25.0, "flops": 6 * 1000 * 5000}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"series": "train.los"}, "did you mean `loss`"),
        ({"series": "evaluation.blimp.acuracy"}, "did you mean `blimp.accuracy`"),
        ({"series": "evaluation.blimp.accuracy", "where": {"group": "syntex"}}, "did you mean `syntax`"),
        ({"series": "analysis.table6", "where": {"metric": "per"}}, "did you mean `table5`"),
        ({"series": "analysis.table5", "where": {"metric": "par"}}, "did you mean `per`"),
        ({"series": "analysis.table5", "where": {"metric": "per", "layer": 7}}, "there is 0, 1"),
    ],
)
def test_a_series_that_a_run_does_not_have_is_one_error_that_names_what_it_has(files, settings, told):
    with pytest.raises(PicoError) as caught:
        value(files, **settings)
    assert told in str(caught.value)


def test_losses_that_were_not_finite_are_left_out_and_counted(tmp_path):
    runs = Runs(study(), tmp_path, losses_apart(0.1), curve=lambda variant, seed: [4.0, math.nan, 3.0])
    found = reduce_measure(MeasureConfig(series="train.loss", reduce="mean"), RunFiles(runs.cell("plain", 11, "confirm").run))
    assert found.value == 3.5 and found.note == "1 values are undefined and left out"


def test_an_axis_that_shrinks_is_refused(tmp_path):
    runs = Runs(study(), tmp_path, losses_apart(0.1), columns=lambda variant, seed: {"odd": [1.0, 3.0, 2.0, 4.0]})
    files = RunFiles(runs.cell("plain", 11, "confirm").run)
    with pytest.raises(PicoError, match="shrinks"):
        reduce_measure(MeasureConfig(series="train.loss", reduce="auc", x="train.odd"), files)


def test_the_table_has_a_row_for_every_run_and_measure(tmp_path):
    config = study(seeds={"tuning": [901], "confirm": [11, 12, 13]})
    runs = Runs(config, tmp_path, losses_apart(0.1), status={("plain", 12): "diverged", ("plain", 13): "missing"})
    cells = runs.cells()
    table = measure_table(config, cells)
    assert len(table) == len(cells) * 2 and set(table.phase) == {"tuning", "confirm"}
    row = table[(table.variant == "plain") & (table.seed == 12) & (table.measure == "final")].iloc[0]
    assert row.value == math.inf and "worst" in row.note
    row = table[(table.variant == "plain") & (table.seed == 13) & (table.measure == "final")].iloc[0]
    assert math.isnan(row.value) and row.note == "the run is missing"


def test_only_seeds_that_ended_in_every_variant_count(tmp_path):
    config = study()
    runs = Runs(config, tmp_path, losses_apart(0.1), status={("plain", 12): "missing", ("treated", 14): "crashed"})
    data = measured(config, runs.cells())
    assert data.seeds() == (11, 13, 15, 16)
    with pytest.raises(PicoError, match="the run is missing"):
        data.reduced("final", "plain", 12)


def test_a_run_folder_that_is_empty_is_an_error_and_not_a_nought(tmp_path):
    config = study()
    cell = Cell("plain", 11, "confirm", RunDirectory(tmp_path / "none"), (), "", "", status="complete")
    data = measured(config.model_copy(update={"measures": {"l": MeasureConfig(series="train.loss")}}), [cell])
    with pytest.raises(PicoError, match=r"train\.loss"):
        data.reduced("l", "plain", 11)


def test_a_series_that_only_one_variant_logs_gives_the_others_no_number_and_a_reason(tmp_path):
    config = study(measures={"final": {"series": "train.loss"}, "merges": {"series": "train.merged"}})
    logs = {"treated": {"merged": [0.0, 1.0, 0.0, 1.0]}, "plain": {}}
    cells = Runs(config, tmp_path, losses_apart(0.1), columns=lambda variant, seed: logs[variant]).cells()
    data = measured(config, cells)
    assert data.reduced("merges", "treated", 11).value == 1.0
    table = measure_table(config, cells)
    note = table[(table.variant == "plain") & (table.measure == "merges")].note.iloc[0]
    assert "there is no column `merged` in its log; there is loss, step_seconds" in note
    with pytest.raises(PicoError, match="no column `merged`"):
        data.reduced("merges", "plain", 11)
