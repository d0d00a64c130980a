"""Every chart of Pico: a function on a tidy DataFrame that returns an Altair chart, for page, paper and notebook alike."""

from __future__ import annotations

from picolm.report.charts.comparison import Reference, layers_of_runs, over_runs, runs_over_time
from picolm.report.charts.dynamics import metric_heatmap, metric_trajectories, over_heads
from picolm.report.charts.evaluation import Z_95, scores_map, scores_over_time
from picolm.report.charts.similarity import similarity_map, step_pairs
from picolm.report.charts.spectra import spectrum_over_time
from picolm.report.charts.study import Span, curve_difference, paired_seeds, seed_effects
from picolm.report.charts.thinning import binned, spaced_steps
from picolm.report.charts.training import NATS, log_column, losses

__all__ = [
    "NATS",
    "Z_95",
    "Reference",
    "Span",
    "binned",
    "curve_difference",
    "layers_of_runs",
    "log_column",
    "losses",
    "metric_heatmap",
    "metric_trajectories",
    "over_heads",
    "over_runs",
    "paired_seeds",
    "runs_over_time",
    "scores_map",
    "scores_over_time",
    "seed_effects",
    "similarity_map",
    "spaced_steps",
    "spectrum_over_time",
    "step_pairs",
]
