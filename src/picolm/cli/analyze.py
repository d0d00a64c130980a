"""`pico analyze <run> <analysis.yaml>`: metrics on components of checkpoints, as tidy rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas

    from picolm.analyze.config import AnalysisConfig
    from picolm.analyze.engine import AnalysisResult


def analyze(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|OWNER/NAME@REVISION",
            help="Run folder, such as runs/demo; also one written by the original trainer. Or a published run: what the "
            "analysis reads is pulled first.",
        ),
    ],
    analysis: Annotated[str, typer.Argument(help="Analysis file (YAML), or the name of one that comes along: table5.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new checkpoints until the run is finished.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for what is pulled. Default: runs/ and the name of the series.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON, one object per line.")] = False,
) -> None:
    """Apply metrics to components of a run's checkpoints; only what is missing is computed."""
    from picolm.analyze.config import load_analysis
    from picolm.analyze.engine import follow_run, run_analysis
    from picolm.analyze.outputs import plain_records, share
    from picolm.analyze.source import open_source
    from picolm.cli.console import say, say_next
    from picolm.cli.progress import counting_bar

    folder, config = _open_folder(run, load_analysis(analysis), out)
    source = open_source(folder)
    with counting_bar("analysing") as progress:
        if follow:
            result = _follow(follow_run(source, config, progress=progress))
        else:
            result = run_analysis(source, config, progress=progress)
    for sentence in share(result.rows, run=source.name, config=config, folder=result.folder):
        say(sentence)
    if as_json:
        for record in plain_records(result.rows):
            typer.echo(json.dumps(record, ensure_ascii=False))
        return
    for line in _summary(result):
        typer.echo(line)
    say_next(f"pico report {folder}")


def _open_folder(run: str, config: AnalysisConfig, out: Path | None) -> tuple[Path, AnalysisConfig]:
    """The run folder and what to do there; of a published run the folder that what the analysis reads is pulled into."""
    from picolm.base.errors import PicoError

    if "@" in run and not Path(run).exists():
        return _pull(run, config, out)
    if out is not None:
        raise PicoError("--out is for what is pulled: the rows of an analysis stay with the run", "OWNER/NAME@REVISION is pulled")
    return Path(run), config


def _pull(address: str, config: AnalysisConfig, out: Path | None) -> tuple[Path, AnalysisConfig]:
    """The same for OWNER/NAME@REVISION; where the revision is one step, that step is analysed."""
    from picolm.analyze.needs import needs_of
    from picolm.base.errors import PicoError
    from picolm.cli.console import say
    from picolm.hub.pull import Wanted, pull_address
    from picolm.hub.survey import RemoteSeries

    chosen = [config]

    def choose(series: RemoteSeries, step: int | None) -> Wanted:
        if series.kind == "revisions":
            raise PicoError(
                f"{address} is a series of plain model folders",
                f"make a run of it first: pico capture '{series.repo_id}@step{{step}}' --data DATA --out DIR",
            )
        if step is not None:
            chosen[0] = config.model_copy(update={"steps": (step,)})
        needs = needs_of(chosen[0], [each.step for each in series.steps])
        say(f"{series.repo_id}: {' and '.join(needs.parts).replace('_', ' ')} of steps {', '.join(map(str, needs.steps))}")
        return Wanted(needs.steps, needs.parts)

    return pull_address(address, out, choose, say)[0], chosen[0]


def _follow(results: Iterator[AnalysisResult]) -> AnalysisResult:
    """The last result; each one that brings news is said. Ctrl-C ends the waiting, not what was computed."""
    from picolm.base.errors import PicoError
    from picolm.cli.console import say

    last: AnalysisResult | None = None
    try:
        for last in results:
            if last.computed:
                say(f"step {last.rows['step'].max()}: {last.computed:,} new rows")
    except KeyboardInterrupt:
        say("stopped waiting; the same command goes on")
    if last is None:
        raise PicoError("nothing was analysed: there is no checkpoint yet", "wait for the first one")
    return last


def _summary(result: AnalysisResult) -> list[str]:
    """Sentences and a table: per metric, component and data type the median at the first and at the last step."""
    rows = result.rows
    undefined = rows[rows["value"].isna()]
    lines = [f"{len(rows):,} rows, {result.computed:,} of them new, {len(undefined):,} undefined: {result.folder}"]
    lines += [f"set aside: {sentence}" for sentence in result.skipped]
    if rows.empty:
        return lines
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
