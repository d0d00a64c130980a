"""The panel everyone looks at first: does it learn, how near is it to the floor, is the optimisation healthy."""

from __future__ import annotations

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Figure, Figures, Missing, Panel, Remark, panel
from picolm.report.tables import ReportData, RunTables, section_of

DEFINITION = """
Training loss is the cross-entropy of the next token, summed over the tokens of one update and divided by their
number, in nats. It is measured on the batch before the update it causes. Validation loss is the same quantity on
held-out text, measured at checkpoints.

The entropy floor, where it is drawn, is the entropy of the language that generated the data: no model can do better
on fresh text. It is known exactly because the data were generated from a grammar.

The gradient norm is the Euclidean norm of the gradient over all parameters, before clipping. The band around a curve
is the range of all logged values that one drawn point stands for.
"""

POINTS = 240
"""Drawn points of a curve; a longer log is summarised in so many bins."""

_COLUMNS = (
    ("gradient_norm", "Gradient norm", "gradient norm, before clipping", True),
    ("learning_rate", "Learning rate", "learning rate", False),
    ("tokens_per_second", "Speed", "tokens per second", False),
)


@panel("loss")
def loss(data: ReportData) -> Panel:
    """Training and validation loss with the floor; gradient norm, learning rate and speed."""
    blocks: list[Block] = []
    for run in data.runs:
        blocks.append(_run_block(run))
    longest = max(len(run.log) for run in data.runs)
    if longest > POINTS:
        text = f"The log has {longest:,} rows; a curve shows {POINTS} points, with the range inside each as a band."
        blocks.append(Remark(text))
    return Panel(
        "Loss", "How well the model predicts the next token as it sees more text; lower is better.", DEFINITION, tuple(blocks)
    )


def _run_block(run: RunTables) -> Block:
    if "loss" not in run.log.columns or run.log["loss"].dropna().empty:
        return Missing(f"The training log of {run.name} has no losses yet: they appear with the first logged update.")
    figures = [_loss_figure(run)]
    for column, title, axis, logarithmic in _COLUMNS:
        if column in run.log.columns and run.log[column].notna().any():
            usable = logarithmic and bool((run.log[column].dropna() > 0).all())
            chart = charts.log_column(run.log, column, title=axis, logarithmic=usable, points=POINTS)
            figures.append(Figure(f"{run.name}-{column}", title, chart, run.log[["step", "tokens", column]], height=170))
    return Figures(tuple(figures))


def _loss_figure(run: RunTables) -> Figure:
    floor = section_of(run.identity, "data").get("entropy_floor_nats_per_token")
    validation = validation_losses(run.scores)
    chart = charts.losses(run.log, validation, floor=float(floor) if isinstance(floor, int | float) else None, points=POINTS)
    numbers = pandas.concat(
        [
            run.log[["step", "tokens", "loss"]].assign(curve="training"),
            validation[["step", "tokens", "value"]].rename(columns={"value": "loss"}).assign(curve="validation"),
        ],
        ignore_index=True,
    )
    return Figure(
        f"{run.name}-loss", "Loss", chart, numbers, caption=_loss_caption(run, validation, floor), size="wide", height=360
    )


def validation_losses(scores: pandas.DataFrame) -> pandas.DataFrame:
    """The held-out loss over all text at each evaluated step, as measured by the first evaluation that has it."""
    chosen = scores[(scores["measure"] == "loss_per_token") & (scores["group"] == "all")]
    chosen = chosen.dropna(subset=["value"]).assign(value=lambda frame: frame["value"].astype("float64"))
    return chosen[chosen["evaluation"] == chosen["evaluation"].iloc[0]] if len(chosen) else chosen


def _loss_caption(run: RunTables, validation: pandas.DataFrame, floor: object) -> str:
    losses = run.log["loss"].dropna()
    sentences = [
        f"Training loss went from {losses.iloc[0]:.3f} to {losses.iloc[-1]:.3f} nats per token in {len(losses):,} logged updates."
    ]
    if len(validation):
        last = float(validation["value"].iloc[-1])
        above = f", {last - floor:.3f} above the floor" if isinstance(floor, int | float) else ""
        sentences.append(f"Validation loss ended at {last:.3f}{above}.")
    else:
        sentences.append("There is no validation loss: no evaluation has measured loss_per_token.")
    if not isinstance(floor, int | float):
        sentences.append("No floor is drawn: the entropy of these data is not known.")
    return " ".join(sentences)
