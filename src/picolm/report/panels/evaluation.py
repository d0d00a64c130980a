"""Evaluation over time: every measure of every evaluation, with intervals and what chance gives."""

from __future__ import annotations

from typing import Any

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Block, Choice, Figure, Figures, Missing, Option, Panel, panel
from picolm.report.tables import ReportData

DEFINITION = """
Each point is one evaluation of a saved checkpoint. For a single run, bands and the intervals in the tooltips are normal 95 %
intervals from the standard error that the evaluation recorded: they speak about the test items, not about seeds. With several
runs, faint lines are runs, strong ones the mean of each series, and the band is the 95 % interval of that mean from three runs
on, the range of two.

Accuracy on minimal pairs is the share of pairs in which the model gives the grammatical sentence the higher probability; chance
is one half. Perplexity is the exponential of the loss per token on held-out text. `all` is the whole evaluation, other lines
are its groups.
"""

MOST_LINES = 8
"""Groups drawn as lines of one chart: as many as there are colours one can tell apart. More become a map."""

COLUMNS = ["step", "tokens", "evaluation", "measure", "group", "value", "standard_error", "n", "baseline"]


@panel("evaluation")
def evaluation(data: ReportData) -> Panel:
    """Scores at every evaluated checkpoint."""
    usable = data.scores.assign(value=pandas.to_numeric(data.scores["value"], errors="coerce").astype("float64"))
    usable = usable.dropna(subset=["value"])
    shown = usable[usable["measure"] != "loss_per_token"]
    blocks: list[Block] = _single(shown) if data.single is not None else _several(shown)
    scored = set(usable["run"])
    empty = [run.name for run in data.runs if run.name not in scored]
    if empty:
        blocks.append(
            Missing(f"There are no scores yet for {', '.join(empty)}: `pico evaluate` measures the checkpoints of a run.")
        )
    undefined = data.scores[data.scores["value"].isna()]
    if len(undefined):
        reasons = "; ".join(note for note in undefined["note"].dropna().drop_duplicates().head(3) if note)
        blocks.append(Missing(f"{len(undefined)} scores are undefined{': ' if reasons else ''}{reasons}."))
    sentence = "What the model can do at each saved checkpoint, measured on text it was not trained on."
    return Panel("Evaluation", sentence, DEFINITION, tuple(blocks))


def measures_of(scores: pandas.DataFrame) -> list[tuple[str, str, pandas.DataFrame]]:
    """(evaluation, measure, its scores), in the order they were recorded."""
    grouped: Any = scores.groupby(["evaluation", "measure"], sort=False)
    return [(str(name), str(measure), part) for (name, measure), part in grouped]


def score_title(evaluation_name: str, measure: str) -> str:
    """`Minimal pairs: accuracy`; an evaluation named like its measure is said once."""
    name, what = evaluation_name.replace("_", " "), measure.replace("_", " ")
    title = what if name == what else f"{name}: {what}"
    return title[:1].upper() + title[1:]


def _single(scores: pandas.DataFrame) -> list[Block]:
    figures, options = [], []
    for name, measure, part in measures_of(scores):
        whole, levels = part[part["group"] == "all"], levels_of(part)
        first = next(iter(levels), None)
        beside = levels[first] if first is not None and levels[first]["group"].nunique() <= MOST_LINES else part[:0]
        together = pandas.concat([whole, beside]) if len(beside) else whole
        if len(together):
            figures.append(_lines(together, name, measure, score_title(name, measure)))
        rest = {level: rows for level, rows in levels.items() if len(beside) == 0 or level != first}
        title = score_title(name, measure)
        options += [Option(title, level or "groups", (_by_group(rows, name, measure, level),)) for level, rows in rest.items()]
    blocks: list[Block] = [Figures(tuple(figures))] if figures else []
    return blocks + ([Choice("Split by", tuple(options))] if options else [])


def levels_of(scores: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """The scores of groups by their level: `field/syntax` is the group `syntax` of the level `field`."""
    groups = scores[scores["group"] != "all"]
    if groups.empty:
        return {}
    parts = groups["group"].astype(str).str.rpartition("/")
    named = groups.assign(level=parts[0], group=parts[2])
    return {str(level): rows.drop(columns="level") for level, rows in named.groupby("level", sort=False)}


def _lines(part: pandas.DataFrame, name: str, measure: str, title: str) -> Figure:
    chart = charts.scores_over_time(part, measure=measure.replace("_", " "), title=title)
    size: Any = "medium" if part["group"].nunique() > 1 else "small"
    stem = f"{part['run'].iloc[0]}-{name}-{measure}"
    return Figure(stem, title, chart, part[COLUMNS], caption=_caption(part), height=240, size=size)


def _by_group(part: pandas.DataFrame, name: str, measure: str, level: str) -> Figure:
    title = f"{score_title(name, measure)} by {level or 'group'}"
    stem = f"{part['run'].iloc[0]}-{name}-{measure}-{level or 'groups'}"
    groups = part["group"].nunique()
    if groups <= MOST_LINES:
        chart: Any = charts.scores_over_time(part, measure=measure.replace("_", " "), title=title)
        return Figure(stem, title, chart, part[COLUMNS], height=260, size="wide")
    chart = charts.scores_map(part, title=title, shares=measure == "accuracy")
    return Figure(stem, title, chart, part[COLUMNS], height=max(160, 22 * groups), size="wide")


def _caption(part: pandas.DataFrame) -> str:
    whole = part[part["group"] == "all"].sort_values("step", kind="stable")
    if whole.empty:
        return f"{part['group'].nunique()} groups at {part['step'].nunique()} checkpoints."
    last = whole.iloc[-1]
    error = pandas.to_numeric(last["standard_error"], errors="coerce")
    interval = f" ± {charts.Z_95 * error:.3g}" if error == error and error > 0 else ""
    return f"At update {int(last['step']):,}: {last['value']:.4g}{interval}; {part['step'].nunique()} checkpoints."


def _several(scores: pandas.DataFrame) -> list[Block]:
    wholes, options = [], []
    for name, measure, part in measures_of(scores):
        whole = part[part["group"] == "all"]
        wholes += [_compared(whole, name, measure, "all")] if len(whole) else []
        for level, rows in levels_of(part).items():
            groups: Any = rows.groupby("group", sort=False)
            figures = tuple(_compared(group_rows, name, measure, str(group)) for group, group_rows in groups)
            options.append(Option(score_title(name, measure), level or "groups", figures))
    blocks: list[Block] = [Figures(tuple(wholes))] if wholes else []
    return blocks + ([Choice("Split by", tuple(options))] if options else [])


def _compared(part: pandas.DataFrame, name: str, measure: str, group: str) -> Figure:
    title = score_title(name, measure) if group == "all" else group.replace("_", " ")
    baselines = pandas.to_numeric(part["baseline"], errors="coerce").dropna().unique()
    chance = charts.Reference(float(baselines[0]), "chance") if len(baselines) == 1 else None
    chart = charts.runs_over_time(part, "value", title=title, reference=chance, shares=measure == "accuracy")
    numbers = part[["run", "variant", "seed", *COLUMNS]]
    return Figure(f"runs-{name}-{measure}-{group}", title, chart, numbers, height=220)
