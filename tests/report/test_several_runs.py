from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from report_example import FLOOR, build_run
from scipy import stats

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.report import charts
from picolm.report.charts.axes import progress_of
from picolm.report.page import build_panels, usual_panels
from picolm.report.panels.comparison import final_values
from picolm.report.panels.contract import Table
from picolm.report.spec import chart_spec
from picolm.report.tables import ReportData, read_report_data


@pytest.fixture(scope="module")
def six_runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunDirectory]:
    folder = tmp_path_factory.mktemp("six")
    options = {
        "steps": 60,
        "checkpoints": (0, 5, 60),
        "layers": 2,
        "heads": 2,
        "metrics": ("gini", "cka"),
        "parts": ("attention.v_proj",),
    }
    return [
        build_run(folder / f"{variant}-{seed}", variant=variant, seed=seed, **options)
        for variant in ("plain", "relora")
        for seed in (1, 2, 3)
    ]


@pytest.fixture(scope="module")
def data(six_runs: list[RunDirectory]) -> ReportData:
    return read_report_data(six_runs)


def test_seeds_of_a_variant_make_one_series(data: ReportData):
    assert data.group_by == "variant"
    assert data.log.groupby("series")["run"].nunique().to_dict() == {"plain": 3, "relora": 3}


def test_runs_can_be_grouped_by_what_one_asks_for(six_runs: list[RunDirectory]):
    assert set(read_report_data(six_runs, group_by="seed").log["series"]) == {"1", "2", "3"}
    assert set(read_report_data(six_runs, group_by="training.method").log["series"]) == {"method plain", "method relora"}
    with pytest.raises(PicoError, match=r"--group-by training\.metod") as raised:
        read_report_data(six_runs, group_by="training.metod")
    assert "training.method" in raised.value.hint


def test_the_band_is_students_interval_of_the_mean_over_runs():
    values = {"a": 1.0, "b": 1.5, "c": 2.75}
    frame = pandas.DataFrame(
        {"series": "s", "run": list(values), "place": 0, "step": 1, "tokens": 10.0, "value": list(values.values())}
    )
    row = charts.over_runs(frame, "value", progress_of(frame)).iloc[0]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(list(values.values())), scale=stats.sem(list(values.values())))
    assert (row["value"], row["low"], row["high"], row["runs"]) == pytest.approx((1.75, low, high, 3))


def test_seeds_whose_tokens_differ_have_one_smooth_mean():
    """The tokens of a run with episodes depend on what its seed drew; at every update the mean is still over all seeds."""
    frame = pandas.concat(
        pandas.DataFrame({"series": "s", "run": run, "step": range(1, 9), "value": value}).assign(
            tokens=lambda f, w=width: f.step * w
        )
        for run, value, width in (("a", 1.0, 100.0), ("b", 2.0, 104.0), ("c", 6.0, 98.0))
    )
    chart = charts.runs_over_time(frame, "value", title="loss")
    means = chart.data
    assert means["value"].unique() == pytest.approx([3.0]) and len(means) == 8
    assert means["tokens"].tolist() == pytest.approx([step * (100 + 104 + 98) / 3 for step in range(1, 9)])


def test_two_runs_have_a_range_and_one_has_no_band():
    frame = pandas.DataFrame(
        {"series": ["s", "s", "t"], "run": ["a", "b", "c"], "place": 0, "step": 1, "tokens": 1.0, "value": [1.0, 2.0, 5.0]}
    )
    rows = charts.over_runs(frame, "value", progress_of(frame)).set_index("series")
    assert rows.loc["s", ["low", "high"]].tolist() == [1.0, 2.0]
    assert rows.loc["t", ["low", "high"]].isna().all()


def test_the_comparison_tells_the_mean_of_the_last_values(data: ReportData):
    ends = final_values(data)
    last = [float(run.log["loss"].iloc[-1]) for run in data.runs if run.variant == "plain"]
    chosen = ends[(ends["series"] == "plain") & (ends["quantity"] == "Training loss")]["value"]
    assert sorted(chosen) == pytest.approx(sorted(last))
    (panel,) = build_panels(data, ["comparison"])
    table = next(block for block in panel.blocks if isinstance(block, Table))
    assert table.rows[0][:2] == ("plain", "3")
    assert table.rows[0][2].startswith(f"{np.mean(last):.4g} (")


def test_every_comparison_fits_the_vega_lite_schema(data: ReportData):
    figures = [figure for panel in build_panels(data, usual_panels(data)) for figure in panel.figures()]
    seen = set()
    for figure in figures:
        if figure.title not in seen:
            seen.add(figure.title)
            figure.chart.to_dict(validate=True)
    assert {"Training loss, nats per token", "Gini coefficient", "Minimal pairs: accuracy"} <= seen


def test_a_floor_that_all_runs_share_is_drawn(data: ReportData):
    figure = next(figure for panel in build_panels(data, ["loss"]) for figure in panel.figures())
    assert FLOOR in [
        value for layer in figure.chart.layer if "text" in getattr(layer.data, "columns", ()) for value in layer.data["value"]
    ]


def test_the_line_of_the_floor_is_drawn_once_and_not_at_every_point(data: ReportData):
    figure = next(figure for panel in build_panels(data, ["loss"]) for figure in panel.figures())
    specification = chart_spec(figure.chart)
    rules = [layer for layer in specification.vega_lite["layer"] if layer["mark"].get("style") == "reference"]
    assert [len(specification.tables[layer["data"]["name"]]) for layer in rules] == [1]


def test_a_chosen_layer_has_its_own_mean_over_runs(data: ReportData):
    rows = data.rows[
        (data.rows["metric"] == "gini") & (data.rows["data_type"] == "weights") & (data.rows["component"] == "simple")
    ]
    means = charts.layers_of_runs(rows, title="Gini").data
    one = means[(means["layer"] == "1") & (means["series"] == "plain") & (means["step"] == 60)]
    expected = rows[(rows["layer"] == 1) & (rows["series"] == "plain") & (rows["step"] == 60)]["value"].mean()
    assert one["value"].tolist() == pytest.approx([expected])


def test_unequal_lengths_are_pointed_out(tmp_path: Path, six_runs: list[RunDirectory]):
    short = build_run(tmp_path / "short", variant="plain", seed=9, steps=10, checkpoints=(0, 10), metrics=("gini",))
    (panel,) = build_panels(read_report_data([six_runs[0], short]), ["comparison"])
    assert any("not equally long" in getattr(block, "text", "") for block in panel.blocks)


def test_runs_of_the_same_name_are_kept_apart(tmp_path: Path):
    small: dict[str, Any] = {"steps": 10, "checkpoints": (0, 10), "metrics": ("gini",), "parts": ("attention.v_proj",)}
    runs = [build_run(tmp_path / place / "same", seed=seed, **small) for seed, place in enumerate(("here", "there"))]
    data = read_report_data(runs)
    assert [run.name for run in data.runs] == ["same", "same (2)"]
    assert data.log.groupby("run").size().to_dict() == {"same": 10, "same (2)": 10}
