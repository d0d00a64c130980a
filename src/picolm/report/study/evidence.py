"""What a verdict rests on: checks, equality between variants, curves of every seed, runs that did not end well."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Badge, Block, Cell, Figure, Figures, Missing, Panel, Remark, Table
from picolm.report.study.predictions import along, axis_name
from picolm.study.judgement import CheckResult, Judgement

CHECKS = """
Checks are looked at before any prediction. One that fails makes the study invalid: whatever the numbers say, they do not speak
about the hypothesis. A check that only reports neither passes nor fails.
"""

PARITY = """
For each seed the quantity must be the same in all variants where it is required; otherwise a difference between variants could
come from it. What is only reported may differ, and is shown so that the reader can judge.
"""

CURVES = """
Every finished run of the confirmation and reserve seeds is a faint line. Strong lines are means over the seeds of a variant, the
band is the 95 % interval of that mean (Student's t over runs) from three seeds on, the range of two. These bands hold point by
point; a prediction about a whole curve has a band of its own that holds at all points together.
"""


def checks(judgement: Judgement) -> Panel:
    """The gates, passed or not."""
    rows = tuple(_check_row(check) for check in judgement.checks)
    blocks: tuple[Block, ...] = (Missing("No check was declared."),)
    if rows:
        details = tuple((check.name, detail) for check in judgement.checks for detail in check.details)
        blocks = (Table(("check", "kind", "result", "what was found"), rows, "All checks", open=True),)
        blocks += (Table(("check", "detail"), details, "What is not as it should be", open=True),) if details else ()
    sentence = "What had to hold before the predictions were looked at."
    return Panel("Checks", sentence, CHECKS, blocks)


def _check_row(check: CheckResult) -> tuple[Cell, ...]:
    result = {True: "passed", False: "failed", None: "reported"}[check.passed]
    return check.name, check.kind.replace("_", " "), Badge(result), check.sentence


def parity(judgement: Judgement) -> Panel:
    """What is equal between the variants, and what is not."""
    names = [variant.name for variant in judgement.variants]
    words = {True: "equal", False: "DIFFERENT", None: "not known"}
    rows = tuple(
        (row.quantity, "yes" if row.required else "no", words[row.equal], *(row.values.get(name, "none") for name in names))
        for row in judgement.parity
    )
    header = ("quantity", "required", "result", *names)
    blocks: tuple[Block, ...] = (Table(header, rows, "Equal between variants, seed by seed", open=True),)
    if not rows:
        blocks = (Missing("No quantity was compared between variants."),)
    return Panel("Parity", "Whether the variants were given the same: like is compared with like.", PARITY, blocks)


def curves(judgement: Judgement) -> Panel:
    """Every curve that was measured, over tokens: means with bands, and every seed."""
    labels = {found.measure: found.label for found in judgement.predictions}
    figures = []
    for measure in dict.fromkeys(curve.measure for curve in judgement.curves):
        pieces = [
            along(curve.x_name, pandas.DataFrame({"x": curve.x, "value": curve.y})).assign(
                series=curve.variant, run=f"{curve.variant}, seed {curve.seed}", seed=curve.seed
            )
            for curve in judgement.curves
            if curve.measure == measure and curve.phase in ("confirm", "reserve")
        ]
        if pieces:
            figures.append(_curve_figure(pandas.concat(pieces, ignore_index=True), measure, labels, judgement))
    blocks: tuple[Block, ...] = (Figures(tuple(figures)),) if figures else (Missing("No series of a finished run can be drawn."),)
    return Panel("Curves", "How every run came to its end: each seed, and the mean of each variant.", CURVES, blocks)


def _curve_figure(frame: pandas.DataFrame, measure: str, labels: dict[str, str], judgement: Judgement) -> Figure:
    title = labels.get(measure, measure)
    x_name = next(curve.x_name for curve in judgement.curves if curve.measure == measure)
    chart: Any = charts.runs_over_time(frame, "value", title=title, across=axis_name(x_name))
    seeds = frame["seed"].nunique()
    return Figure(f"curve-{measure}", title[:1].upper() + title[1:], chart, frame, f"{seeds} seeds.", size="wide", height=340)


def failures(judgement: Judgement) -> Panel:
    """Runs that did not end in the ordinary way and how they count; what differs from what was declared."""
    rows = tuple(
        (f"{run.variant}, seed {run.seed}", run.phase, run.outcome, run.counted_as, run.note) for run in judgement.failures
    )
    blocks: list[Block] = []
    if rows:
        blocks.append(Table(("run", "phase", "outcome", "counted as", "note"), rows, "Runs that did not end well", open=True))
    else:
        blocks.append(Remark("Every run that was to be made ended in the ordinary way."))
    if judgement.deviations:
        blocks.append(Table(("deviation",), tuple((text,) for text in judgement.deviations), "Deviations", open=True))
    else:
        blocks.append(Remark("Nothing differs from what was declared and locked."))
    definition = "How a run counts that diverged or crashed is declared before the runs, so that nobody chooses afterwards."
    return Panel("Failures and deviations", "What did not go as planned, and how it is counted.", definition, tuple(blocks))
