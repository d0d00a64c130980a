"""What the model says: continuations of fixed prompts at each checkpoint, as text."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Frame, Missing, Panel, Passage, Passages, Remark, Table, panel
from picolm.report.tables import ReportData, RunTables
from picolm.report.words import quantity

DEFINITION = """
At each evaluated checkpoint the model continues the same prompts. With temperature 0 it takes the most probable token each
time; otherwise it draws, with the same seed at each checkpoint. The prompt is paler than what the model adds. Characters
that cannot be seen are written as their code points.

Text is an illustration. Whether a model has learned something is told by the scores.
"""


@panel("samples")
def samples(data: ReportData, *, most_steps: int = 60, most_runs: int = 6) -> Panel:
    """Generated text by checkpoint, with a slider. `most_steps`: checkpoints kept; `most_runs`: runs shown."""
    having = [run for run in data.runs if len(run.samples)]
    blocks: list[Block] = []
    for run in having[:most_runs]:
        blocks += _run_blocks(run, most_steps, title=run.name if len(data.runs) > 1 else "")
    if len(having) > most_runs:
        blocks.append(Remark(f"Text of {most_runs} of {len(having)} runs; the others' lie in the tables beside the page."))
    if not having:
        blocks.append(Missing("No text was generated: the evaluation `samples` continues prompts at each checkpoint."))
    sentence = "What the model writes when it is given a beginning, checkpoint by checkpoint."
    return Panel("Generated text", sentence, DEFINITION, tuple(blocks))


def _run_blocks(run: RunTables, most_steps: int, *, title: str) -> list[Block]:
    steps = [int(step) for step in run.samples["step"].unique()]
    shown = run.samples[run.samples["step"].isin(charts.spaced_steps(steps, most_steps))]
    by_step: Any = shown.groupby("step", sort=True)
    frames = tuple(Frame(_moment(part), _passages(part)) for _, part in by_step)
    blocks: list[Block] = [Passages("Checkpoint", frames, title)]
    by_prompt: Any = shown.groupby(["evaluation", "prompt"], sort=False)
    prefix = f"{title}: " if title else ""
    blocks += [_every_step(part, f"{prefix}every continuation of “{prompt}”") for (_, prompt), part in by_prompt]
    if len(steps) > most_steps:
        blocks.append(Remark(f"Text of {most_steps} of {len(steps)} checkpoints, first and last among them."))
    return blocks


def _moment(part: pandas.DataFrame) -> str:
    first = part.iloc[0]
    tokens = f", {quantity(float(first['tokens'])).strip()} tokens" if pandas.notna(first["tokens"]) else ""
    return f"update {int(first['step']):,}{tokens}"


def _passages(part: pandas.DataFrame) -> tuple[Passage, ...]:
    return tuple(Passage(str(row["prompt"]), str(row["continuation"])) for row in part.to_dict("records"))


def _every_step(part: pandas.DataFrame, caption: str) -> Table:
    rows = tuple((f"{int(row['step']):,}", str(row["continuation"])) for row in part.to_dict("records"))
    return Table(("update", "continuation"), rows, caption=caption[:1].upper() + caption[1:])
