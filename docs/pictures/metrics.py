"""Draws the picture of `docs/concepts/metrics.md` from the rows of a run: `python docs/pictures/metrics.py runs/demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

import altair
import pandas

import picolm

PANELS = {
    "w_2, weights": ("simple", "swiglu.w_2", "weights"),
    "w_2, gradients": ("simple", "swiglu.w_2", "gradients"),
    "OV circuits, weights (mean of heads)": ("ov_circuit", "ov_circuit", "weights"),
}


def effective_rank_by_layer(rows: pandas.DataFrame) -> altair.FacetChart:
    """PER over steps, a line per layer, the null of noise of the same shape dashed."""
    chosen = rows[rows["metric"] == "per"]
    parts = [
        chosen[(chosen["component"] == component) & (chosen["part"] == part) & (chosen["data_type"] == data_type)].assign(
            panel=title
        )
        for title, (component, part, data_type) in PANELS.items()
    ]
    table = pandas.concat(parts).groupby(["panel", "step", "layer"], as_index=False)[["value", "null"]].mean()
    step = altair.X(
        "step:Q", scale=altair.Scale(type="symlog"), title="step", axis=altair.Axis(values=[0, 1, 4, 16, 64, 256, 600])
    )
    base = altair.Chart().encode(x=step)
    lines = base.mark_line(point=altair.OverlayMarkDef(size=14)).encode(
        y=altair.Y("value:Q", title="proportional effective rank", scale=altair.Scale(domain=[0, 1])),
        color=altair.Color("layer:O", scale=altair.Scale(scheme="viridis"), title="layer"),
    )
    null = base.mark_line(strokeDash=[5, 4], color="#777").encode(y="mean(null):Q")
    layered = altair.layer(lines, null, data=table).properties(width=230, height=190)
    titles = altair.Header(title=None, labelFontSize=12)
    return (
        layered.facet(altair.Column("panel:N", sort=list(PANELS), header=titles))
        .configure_view(stroke=None)
        .configure(background="white")
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run folder, analysed with table5")
    arguments = parser.parse_args()
    chart = effective_rank_by_layer(picolm.open_run(arguments.run).rows("table5"))
    chart.save(Path(__file__).with_name("metrics-demo.svg"))
