from __future__ import annotations

import altair
import numpy as np
import pandas
import pytest

from picolm.records.rundir import RunDirectory
from picolm.report import charts, theme
from picolm.report.charts.axes import decade_ticks, progress_of, progress_position, spread_labels, wants_log
from picolm.report.panels.contract import DEFAULT_PANELS
from picolm.report.tables import read_report_data


def frame(steps: list[int]) -> pandas.DataFrame:
    return pandas.DataFrame({"step": steps, "tokens": [10 * step for step in steps], "loss": [float(step % 7) for step in steps]})


def test_log_spaced_checkpoints_get_a_logarithmic_axis_and_even_ones_do_not():
    assert progress_of(frame([0, 1, 10, 100, 1000])).unit == 10
    assert progress_of(frame([100, 200, 300])).unit is None


def test_steps_stand_in_where_tokens_are_unknown():
    unknown = frame([1, 2, 3]).assign(tokens=np.nan)
    assert progress_of(unknown).column == "step"
    assert progress_of(frame([1, 2, 3]), unknown).column == "step"


def test_decade_ticks_lie_between_the_limits_and_include_zero():
    assert decade_ticks(4096, 2_457_600) == [0, 1e4, 1e5, 1e6]
    assert decade_ticks(3, 40) == [0, 5, 10, 20]


@pytest.mark.parametrize(("values", "expected"), [([1, 100], True), ([1, 10], False), ([-1, 1000], False), ([], False)])
def test_only_positive_values_over_a_wide_range_want_a_logarithmic_axis(values: list[float], expected: bool):
    assert wants_log(values) is expected


def test_binned_curves_keep_extremes_ends_and_the_mean():
    log = frame(list(range(1, 5001)))
    thin = charts.binned(log, "loss", progress_of(log), points=100)
    assert len(thin) <= 100
    assert thin["low"].min() == 0 and thin["high"].max() == 6
    assert int(thin["step"].iloc[-1]) == 5000
    assert thin["rows"].sum() == 5000
    assert np.average(thin["loss"], weights=thin["rows"]) == pytest.approx(log["loss"].mean())


def test_bins_are_equally_wide_on_the_axis_they_are_drawn_on():
    log = frame(list(range(1, 100_001)))
    progress = progress_of(log)
    thin = charts.binned(log, "loss", progress, points=50)
    gaps = np.diff(progress_position(progress, thin["tokens"]))
    assert gaps[25:].max() < 1.2 * gaps[25:].min()


def test_few_rows_are_left_as_they_are():
    log = frame([1, 2, 3])
    assert charts.binned(log, "loss", progress_of(log))["loss"].tolist() == log["loss"].tolist()


def test_spaced_steps_keep_first_and_last():
    chosen = charts.spaced_steps(range(1000), 120)
    assert len(chosen) == 120 and chosen[0] == 0 and chosen[-1] == 999


def test_labels_are_moved_apart_in_their_order():
    places = spread_labels([2.5, 2.49, 7.0], 0.0, 10.0, gap_share=0.1)
    assert places[0] - places[1] == pytest.approx(1.0)
    assert sorted(places) == [places[1], places[0], places[2]]


def test_layer_colors_grow_steadily_lighter():
    def luminance(color: str) -> float:
        red, green, blue = (channel / 255 for channel in bytes.fromhex(color[1:]))
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    for dark in (False, True):
        values = [luminance(color) for color in theme.layer_colors(24, dark=dark)]
        assert values == sorted(values)


def test_every_chart_of_the_usual_panels_fits_the_vega_lite_schema(example_run: RunDirectory):
    from picolm.report.page import build_panels

    seen = set()
    for panel in build_panels(read_report_data([example_run]), DEFAULT_PANELS):
        for figure in panel.figures():
            if (panel.title, figure.title) not in seen:
                seen.add((panel.title, figure.title))
                figure.chart.to_dict(validate=True)
    assert len(seen) > 10


def test_heads_become_a_band_around_their_mean():
    rows = pandas.DataFrame({"step": [0] * 3, "tokens": [0.0] * 3, "layer": [1] * 3, "head": [0, 1, 2], "value": [1.0, 2.0, 6.0]})
    chart = charts.metric_trajectories(rows.assign(null=np.nan), title="gini")
    assert isinstance(chart, altair.LayerChart)
    summary = charts.over_heads(rows).iloc[0]
    assert (summary["value"], summary["low"], summary["high"], summary["heads"]) == (3.0, 1.0, 6.0, 3)


def test_a_filled_template_is_the_chart_that_altair_writes(example_run: RunDirectory):
    from picolm.report.page import build_panels
    from picolm.report.spec import _spec_of, chart_spec

    for figure in build_panels(read_report_data([example_run]), ["dynamics", "heatmap"])[0].figures()[:8]:
        quick, slow = chart_spec(figure.chart), _spec_of(figure.chart)
        assert list(quick.tables) == list(slow.tables)
        assert drawn(quick.vega_lite) == drawn(slow.vega_lite)


def drawn(spec: dict[str, object], data: object = None) -> object:
    """A specification with the data each of its layers inherits written out, and without names that are counted."""
    own = spec.get("data", data)
    if "layer" in spec:
        return [drawn(layer, own) for layer in spec["layer"]]  # type: ignore[attr-defined]
    return {name: value for name, value in spec.items() if name in ("mark", "encoding", "transform")} | {"data": own}


def test_the_interval_of_an_accuracy_stays_between_none_and_all():
    scores = pandas.DataFrame(
        {"step": [1, 2], "tokens": [1.0, 2.0], "group": "all", "value": [0.02, 0.99], "standard_error": 0.02, "baseline": 0.5}
    )
    band = next(
        layer.data
        for layer in charts.scores_over_time(scores, measure="accuracy").layer
        if "low" in getattr(layer.data, "columns", ())
    )
    assert band["low"].min() == 0.0 and band["high"].max() == 1.0
    assert band["high"].iloc[0] == pytest.approx(0.02 + 1.959964 * 0.02)
