"""The panel everyone looks at first: does it learn, how near is it to the floor, is the optimisation healthy."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Figure, Figures, Missing, Panel, Remark, panel
from picolm.report.panels.cost import TOTALS
from picolm.report.tables import ReportData, RunTables, entropy_floor

DEFINITION = """
Training loss is the cross-entropy of the next token, summed over the tokens of one update and divided by their number, in
nats. It is measured on the batch before the update it causes. Validation loss is the same quantity on held-out text, measured
at checkpoints.

The entropy floor, where it is drawn, is the entropy of the language that generated the data: no model can do better on fresh
text. It is known exactly because the data were generated from a grammar.

The gradient norm is the Euclidean norm of the gradient over all parameters, before clipping. The band around the curve of a
single run is the range of all logged values that one drawn point stands for.

With several runs, faint lines are runs and strong ones the mean of each series. The band is the 95 % interval of that mean
(Student's t over runs) from three runs on, and the range of two. Runs are the unit of replication; steps never are.
"""

POINTS = 240
"""Drawn points of a curve; a longer log is summarised in so many bins."""

_COLUMNS = (
    ("gradient_norm", "Gradient norm", "gradient norm, before clipping", True),
    ("learning_rate", "Learning rate", "learning rate", False),
    ("tokens_per_second", "Speed", "tokens per second", False),
)

LOG_COLUMNS = ("run", "variant", "seed", "step", "tokens")


@panel("loss")
def loss(data: ReportData) -> Panel:
    """Training and validation loss with the floor; gradient norm, learning rate, speed and what else the method logs."""
    blocks = list(_single(data.runs[0]) if data.single is not None else _several(data))
    longest = max(len(run.log) for run in data.runs)
    if longest > POINTS:
        blocks.append(
            Remark(f"The log has {longest:,} rows; a curve shows {POINTS} points, each the mean of the rows it stands for.")
        )
    sentence = "How well the model predicts the next token as it sees more text; lower is better."
    return Panel("Loss", sentence, DEFINITION, tuple(blocks))


def _single(run: RunTables) -> list[Block]:
    if not has_values(run.log, "loss"):
        return [Missing(f"The training log of {run.name} has no losses yet: they appear with the first logged update.")]
    figures = [_loss_figure(run)]
    for column, title, axis, logarithmic in (*_COLUMNS, *_other_columns(run.log)):
        if has_values(run.log, column):
            usable = logarithmic and bool((run.log[column].dropna() > 0).all())
            chart = charts.log_column(run.log, column, title=axis, logarithmic=usable, points=POINTS)
            figures.append(Figure(f"{run.name}-{column}", title, chart, run.log[["step", "tokens", column]], height=170))
    return [Figures(tuple(figures))]


def has_values(frame: pandas.DataFrame, column: str) -> bool:
    """Whether a frame has the column and a number in it."""
    return column in frame.columns and bool(pandas.to_numeric(frame[column], errors="coerce").notna().any())


def _other_columns(log: pandas.DataFrame) -> list[tuple[str, str, str, bool]]:
    known = {name for name, *_ in _COLUMNS} | {*LOG_COLUMNS, "series", "loss", "clip_factor", "step_seconds", *TOTALS}
    numeric = [str(name) for name in log.columns if name not in known and pandas.api.types.is_numeric_dtype(log[name])]
    numeric = [name for name in numeric if log[name].nunique() > 1]
    return [(name, _words(name), _words(name).lower(), False) for name in numeric]


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _loss_figure(run: RunTables) -> Figure:
    floor = entropy_floor(run)
    validation = validation_losses(run.scores)
    chart = charts.losses(run.log, validation, floor=floor, points=POINTS)
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


def _loss_caption(run: RunTables, validation: pandas.DataFrame, floor: float | None) -> str:
    losses = run.log["loss"].dropna()
    change = f"from {losses.iloc[0]:.3f} to {losses.iloc[-1]:.3f} nats per token"
    sentences = [f"Training loss went {change} in {len(losses):,} logged updates."]
    if len(validation):
        last = float(validation["value"].iloc[-1])
        above = f", {last - floor:.3f} above the floor" if floor is not None else ""
        sentences.append(f"Validation loss ended at {last:.3f}{above}.")
    else:
        sentences.append("There is no validation loss: no evaluation has measured loss_per_token.")
    if floor is None:
        sentences.append("No floor is drawn: the entropy of these data is not known.")
    return " ".join(sentences)


def _several(data: ReportData) -> list[Block]:
    figures = []
    validation = validation_losses(data.scores)
    if has_values(data.log, "loss"):
        floors = {entropy_floor(run) for run in data.runs}
        floor = floors.pop() if len(floors) == 1 else None
        reference = charts.Reference(floor, "entropy floor") if floor is not None else None
        figures.append(_compared(data.log, "loss", "Training loss", wide=True, reference=reference))
    if len(validation):
        figures.append(_compared(validation.rename(columns={"value": "validation_loss"}), "validation_loss", "Validation loss"))
    for column, title, _, logarithmic in (*_COLUMNS, *_other_columns(data.log)):
        if has_values(data.log, column):
            figures.append(_compared(data.log, column, title, logarithmic=logarithmic, even=True))
    empty = [run.name for run in data.runs if not has_values(run.log, "loss")]
    blocks: list[Block] = [Figures(tuple(figures))] if figures else []
    return blocks + [Missing(f"No losses are logged yet for: {', '.join(empty)}.")] * bool(empty)


def _compared(frame: pandas.DataFrame, column: str, title: str, *, wide: bool = False, **scales: Any) -> Figure:
    unit = f", {charts.NATS}" if "loss" in column else ""
    chart = charts.runs_over_time(frame, column, title=title + unit, **scales)
    numbers = frame[[*LOG_COLUMNS, column]]
    size: Any = "wide" if wide else "small"
    return Figure(f"runs-{column}", title + unit, chart, numbers, size=size, height=340 if wide else 190)
