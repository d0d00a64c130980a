"""A map of how alike checkpoints are to one another: both axes are training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas

from picolm.report.charts.axes import color_legend, value_title

if TYPE_CHECKING:
    import altair

_STEP = r"^step=(\d+)$"


def step_pairs(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows that compare a checkpoint with another of the same run: `step`, `other_step` and the mean `value` over layers'
    heads. A pair measured in one direction stands for both."""
    other = rows["partner"].astype(str).str.extract(_STEP)[0]
    kept = rows.assign(other_step=pandas.to_numeric(other, errors="coerce")).dropna(subset=["other_step", "value"])
    kept = kept.assign(other_step=kept["other_step"].astype("int64"), step=kept["step"].astype("int64"))
    kept = kept.assign(value=kept["value"].astype("float64"), layer=kept["layer"].astype("Int64"))
    means = kept.groupby(["layer", "step", "other_step"], dropna=False)["value"].mean().reset_index()
    turned = means.rename(columns={"step": "other_step", "other_step": "step"})
    both = pandas.concat([means, turned[means.columns]], ignore_index=True)
    return both.drop_duplicates(["layer", "step", "other_step"], keep="first").sort_values(["layer", "step", "other_step"])


def similarity_map(pairs: pandas.DataFrame, *, title: str, bounds: tuple[float, float] | None = None) -> altair.Chart:
    """Checkpoint by checkpoint, the value as colour. `pairs`: `step`, `other_step`, `value`; `bounds` fixes the colour scale."""
    import altair

    axis = altair.Axis(labelExpr="format(datum.value, '.3~s')", labelAngle=0, labelOverlap="greedy", ticks=False, domain=False)
    upright = altair.Axis(
        labelExpr="format(datum.value, '.3~s')", ticks=False, grid=False, labelOverlap="greedy", **value_title()
    )
    scale = altair.Scale(domain=list(bounds)) if bounds is not None else altair.Scale(zero=False)
    base: altair.Chart = altair.Chart(pairs[["step", "other_step", "value"]], title=title).mark_rect()
    chart: altair.Chart = base.encode(
        altair.X("step:O", title="updates", axis=axis),
        altair.Y("other_step:O", sort="descending", title="updates", axis=upright),
        altair.Color("value:Q", title=None, scale=scale, legend=color_legend()),
        tooltip=[
            *(altair.Tooltip("step:Q", format=",d"), altair.Tooltip("other_step:Q", title="with step", format=",d")),
            altair.Tooltip("value:Q", format=".4~g"),
        ],
    )
    return chart
