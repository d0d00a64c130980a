"""`pico analyze <run> <analysis.yaml>`: metrics on components of checkpoints, as tidy rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas

    from picolm.analyze.engine import AnalysisResult, Progress


def analyze(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/demo.")],
    analysis: Annotated[str, typer.Argument(help="Analysis file (YAML), or the name of one that comes along: table5.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON, one object per line.")] = False,
) -> None:
    """Apply metrics to components of a run's checkpoints; only what is missing is computed."""
    from picolm.analyze.config import load_analysis
    from picolm.analyze.engine import run_analysis
    from picolm.analyze.source import open_source

    source = open_source(run)
    config = load_analysis(analysis)
    with _progress_bar() as progress:
        result = run_analysis(source, config, progress=progress)
    if as_json:
        typer.echo(result.rows.to_json(orient="records", lines=True), nl=False)
        return
    for line in _summary(result):
        typer.echo(line)
    typer.echo(f"next: pico report {run}")


def _summary(result: AnalysisResult) -> list[str]:
    """Sentences and a table: per metric, component and data type the median at the first and at the last step."""
    rows = result.rows
    undefined = rows[rows["value"].isna()]
    lines = [f"{len(rows):,} rows, {result.computed:,} of them new, {len(undefined):,} undefined: {result.folder}"]
    lines += [f"set aside: {sentence}" for sentence in result.skipped]
    steps = sorted(int(step) for step in rows["step"].unique())
    first, last = steps[0], steps[-1]
    lines.append(f"{'metric':42} {'of':34} {'rows':>6} {f'step {first}':>12} {f'step {last}':>12}")
    for key, group in rows.groupby(["metric", "options", "component", "data_type", "split"], sort=False):
        metric, options, component, data_type, split = (str(part) for part in key)
        name = metric if options == "{}" else f"{metric} {options}"
        of = " ".join(part for part in (component, data_type, split) if part)
        medians = [_median(group[group["step"] == step]["value"]) for step in (first, last)]
        lines.append(f"{name:42} {of:34} {len(group):6,} {medians[0]:>12} {medians[1]:>12}")
    counts = (undefined["metric"] + ": " + undefined["note"]).value_counts()
    lines += [f"undefined {count:,} times: {reason}" for reason, count in counts.head(10).items()]
    if len(counts) > 10:
        lines.append(f"and {len(counts) - 10} more reasons: see the column `note`")
    return lines


def _median(values: pandas.Series) -> str:
    defined = values.dropna()
    return f"{defined.median():.4g}" if len(defined) else "-"


@contextmanager
def _progress_bar() -> Iterator[Progress | None]:
    """A bar on standard error for a terminal, drawn only once two seconds have passed."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    started = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("analysing", total=None, visible=False)
        yield lambda done, total, text: bar.update(
            task, completed=done, total=total, description=text, visible=time.monotonic() - started > 2
        )
