"""Every chart of a report as a function on a DataFrame that returns an Altair chart; for notebooks.

    from picolm import charts, open_run
    charts.losses(open_run("runs/demo").log())

Size and colours of a paper or a slide: `charts.styled(chart, "paper")`.
"""

from __future__ import annotations

from picolm.report.charts import (
    Reference,
    Span,
    curve_difference,
    layers_of_runs,
    log_column,
    losses,
    metric_heatmap,
    metric_trajectories,
    over_runs,
    paired_seeds,
    runs_over_time,
    scores_map,
    scores_over_time,
    seed_effects,
    similarity_map,
    spectrum_over_time,
    step_pairs,
)
from picolm.report.figures import save_chart, styled

__all__ = [
    "Reference",
    "Span",
    "curve_difference",
    "layers_of_runs",
    "log_column",
    "losses",
    "metric_heatmap",
    "metric_trajectories",
    "over_runs",
    "paired_seeds",
    "runs_over_time",
    "save_chart",
    "scores_map",
    "scores_over_time",
    "seed_effects",
    "similarity_map",
    "spectrum_over_time",
    "step_pairs",
    "styled",
]
