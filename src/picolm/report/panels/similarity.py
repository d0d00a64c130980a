"""How alike the checkpoints of a run are to one another, layer by layer."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Choice, Figure, Missing, Option, Panel, Remark, panel
from picolm.report.panels.dynamics import MATRIX, metric_title
from picolm.report.tables import ReportData, RunTables

DEFINITION = """
Each cell compares the same activations of one layer at two checkpoints of a run, on the same samples. Bright blocks on the
diagonal are stretches of training in which a layer changes little; a dark corner means that early and late representations
differ. A pair that was measured in one direction stands for both, since the measures drawn here are symmetric.
"""


@panel("similarity")
def similarity(data: ReportData, *, most_steps: int = 40) -> Panel:
    """Checkpoint x checkpoint maps of each metric that compares two. `most_steps`: checkpoints drawn."""
    options: list[Option] = []
    thinned = 0
    for run in data.runs:
        prefix = "" if data.single is not None else f"{run.name}: "
        made, steps = _run_options(run, most_steps, prefix)
        options += made
        thinned = max(thinned, steps)
    sentence = "Which stretches of training leave the representations as they are, and where they turn."
    blocks: list[Block] = [Choice("Compared", tuple(options))] if options else [_missing()]
    if thinned > most_steps:
        blocks.append(Remark(f"Drawn for {most_steps} of {thinned} checkpoints, first and last among them."))
    return Panel("Checkpoint similarity", sentence, DEFINITION, tuple(blocks))


def _missing() -> Missing:
    return Missing(
        "No metric compares three or more checkpoints with one another; an analysis with `cka` and several "
        "`target_checkpoint` does."
    )


def _run_options(run: RunTables, most_steps: int, prefix: str) -> tuple[list[Option], int]:
    options: list[Option] = []
    most = 0
    rows = run.rows[run.rows["partner"].astype(str).str.match(r"^step=\d+$")] if len(run.rows) else run.rows
    grouped: Any = rows.groupby([*MATRIX, "metric", "options"], sort=False)
    for (data_type, split, component, part, metric, settings), group in grouped:
        pairs = charts.step_pairs(group)
        if pairs["other_step"].nunique() < 3 or group["partner"].nunique() < 3:
            continue
        most = max(most, pairs["step"].nunique())
        title = metric_title(metric, settings, "")
        where = f"{data_type}{f' ({split})' if split else ''}, {part if component == 'simple' else component}"
        figures = _layer_figures(pairs, f"{run.name}-{where}-{title}", most_steps)
        options.append(Option(f"{prefix}{title}", where.replace("_", " "), figures))
    return options, most


def _layer_figures(pairs: pandas.DataFrame, stem: str, most_steps: int) -> tuple[Figure, ...]:
    kept = set(charts.spaced_steps([int(step) for step in pairs["step"].unique()], most_steps))
    shown = pairs[pairs["step"].isin(kept) & pairs["other_step"].isin(kept)]
    bounds = (min(0.0, float(shown["value"].min())), max(1.0, float(shown["value"].max())))
    figures = []
    grouped: Any = shown.groupby("layer", dropna=False)
    for layer, part in grouped:
        name = "outside the layers" if pandas.isna(layer) else f"layer {int(layer)}"
        chart = charts.similarity_map(part, title=name, bounds=bounds)
        whole = pairs[pairs["layer"].isna()] if pandas.isna(layer) else pairs[pairs["layer"] == layer]
        figures.append(Figure(f"{stem}-{name}", name.capitalize(), chart, whole, height=240))
    return tuple(figures)
