"""Evaluation over time: every measure of every evaluation, with intervals and what chance gives."""

from __future__ import annotations

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Figure, Figures, Missing, Panel, panel
from picolm.report.tables import ReportData

DEFINITION = """
Each point is one evaluation of a saved checkpoint. Bands and the intervals in the tooltips are normal 95 % intervals
from the standard error that the evaluation recorded; they speak about the test items, not about seeds.

Accuracy on minimal pairs is the share of pairs in which the model gives the grammatical sentence the higher
probability; chance is one half. Perplexity is the exponential of the loss per token on held-out text. `all` is the
whole evaluation, other lines are its groups.
"""


@panel("evaluation")
def evaluation(data: ReportData) -> Panel:
    """Scores at every evaluated checkpoint."""
    blocks = tuple(_run_block(run.name, run.scores) for run in data.runs)
    return Panel(
        "Evaluation",
        "What the model can do at each saved checkpoint, measured on text it was not trained on.",
        DEFINITION,
        blocks,
    )


def _run_block(name: str, scores: pandas.DataFrame) -> Block:
    usable = scores.dropna(subset=["value"]) if not scores.empty else scores
    if usable.empty:
        return Missing(f"{name} has no scores yet: `pico evaluate` measures its checkpoints.")
    figures = []
    for (evaluation_name, measure), part in usable.groupby(["evaluation", "measure"], sort=False):
        if measure == "loss_per_token":
            continue
        chart = charts.scores_over_time(part, measure=_words(measure))
        title = f"{_words(evaluation_name)}: {_words(measure)}" if _words(evaluation_name) != _words(measure) else _words(measure)
        columns = ["step", "tokens", "evaluation", "measure", "group", "value", "standard_error", "n", "baseline"]
        figures.append(
            Figure(
                f"{name}-{evaluation_name}-{measure}",
                title.capitalize(),
                chart,
                part[columns],
                caption=_caption(part),
                height=240,
                size="medium" if part["group"].nunique() > 1 else "small",
            )
        )
    return Figures(tuple(figures))


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _caption(part: pandas.DataFrame) -> str:
    whole = part[part["group"] == "all"].sort_values("step", kind="stable")
    if whole.empty:
        return f"{part['group'].nunique()} groups at {part['step'].nunique()} checkpoints."
    last = whole.iloc[-1]
    error = (
        f" ± {1.959964 * last['standard_error']:.3g}"
        if last["standard_error"] == last["standard_error"] and last["standard_error"]
        else ""
    )
    return f"At update {int(last['step']):,}: {last['value']:.4g}{error}; {part['step'].nunique()} checkpoints."
