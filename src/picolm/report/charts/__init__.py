"""Every chart of Pico: a function on a tidy DataFrame that returns an Altair chart, for page, paper and notebook alike."""

from __future__ import annotations

from picolm.report.charts.dynamics import metric_heatmap, metric_trajectories, over_heads
from picolm.report.charts.evaluation import scores_over_time
from picolm.report.charts.thinning import binned, spaced_steps
from picolm.report.charts.training import log_column, losses

__all__ = [
    "binned",
    "log_column",
    "losses",
    "metric_heatmap",
    "metric_trajectories",
    "over_heads",
    "scores_over_time",
    "spaced_steps",
]
