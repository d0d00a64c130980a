from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from report_example import build_run

from picolm.records import table
from picolm.records.rundir import RunDirectory
from picolm.records.table import Row
from picolm.report import charts
from picolm.report.page import build_panels
from picolm.report.panels.contract import Choice, Missing
from picolm.report.tables import read_report_data

STEPS = (0, 1, 3, 8)


@pytest.fixture
def compared_run(tmp_path: Path) -> RunDirectory:
    run = build_run(tmp_path / "compared", steps=8, checkpoints=STEPS, metrics=("gini",))
    rows = [
        Row(
            "compared",
            a,
            "activations",
            "simple",
            "attention.o_proj",
            "cka",
            1 - abs(a - b) / 10,
            split="val",
            layer=layer,
            partner=f"step={b}",
        )
        for a in STEPS
        for b in STEPS
        if a <= b
        for layer in (0, 1)
    ]
    table.append_rows(run.analysis("similarity"), rows)
    return run


def test_pairs_measured_one_way_fill_the_whole_map(compared_run: RunDirectory):
    rows = read_report_data([compared_run]).rows
    pairs = charts.step_pairs(rows[rows["metric"] == "cka"])
    one = pairs[pairs["layer"] == 1].pivot(index="step", columns="other_step", values="value")
    assert one.shape == (4, 4)
    assert (one.to_numpy() == one.to_numpy().T).all()
    assert one.loc[8, 0] == pytest.approx(0.2)


def test_each_layer_has_its_map_of_checkpoints(compared_run: RunDirectory):
    (panel,) = build_panels(read_report_data([compared_run]), ["similarity"])
    (choice,) = [block for block in panel.blocks if isinstance(block, Choice)]
    assert [figure.title for figure in choice.options[0].figures] == ["Layer 0", "Layer 1"]
    choice.options[0].figures[0].chart.to_dict(validate=True)


def test_one_partner_is_no_map(example_run: RunDirectory):
    (panel,) = build_panels(read_report_data([example_run]), ["similarity"])
    assert panel.is_missing and isinstance(panel.blocks[0], Missing)


def test_a_heatmap_has_one_cell_per_layer_and_checkpoint(example_run: RunDirectory):
    (panel,) = build_panels(read_report_data([example_run]), ["heatmap"])
    figure = panel.figures()[0]
    assert len(figure.chart.data) == 4 * 10
    figure.chart.to_dict(validate=True)


def test_many_checkpoints_are_thinned_and_the_page_says_so(bare_run: RunDirectory):
    rows = [
        Row("bare", step, "weights", "simple", "attention.v_proj", "gini", 0.4, layer=layer)
        for step in range(150)
        for layer in (0, 1)
    ]
    table.append_rows(bare_run.analysis("long"), rows)
    dynamics, heatmap = build_panels(read_report_data([bare_run]), ["dynamics", "heatmap"])
    assert any("80 of 150" in getattr(block, "text", "") for block in dynamics.blocks)
    assert any("40 of 150" in getattr(block, "text", "") for block in heatmap.blocks)
    drawn = dynamics.figures()[0]
    assert drawn.chart.data["step"].nunique() == 80
    assert drawn.data["step"].nunique() == 150


def test_steps_that_are_not_numbers_are_not_partners():
    frame = pandas.DataFrame({"partner": ["step=previous", "beside", ""], "step": 1, "layer": 0, "value": 1.0})
    assert charts.step_pairs(frame).empty
