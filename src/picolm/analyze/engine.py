"""`pico analyze`: steps x components x metrics of a run become tidy rows, each value computed once in a lifetime.

A snapshot is opened once and read lazily; the rows of a step land before the next step is opened; a row whose
fingerprint is already in the table is not computed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from picolm.analyze.config import AnalysisConfig, check_step
from picolm.analyze.measure import Task, measure_tasks, tasks_of_step, usable_cores
from picolm.analyze.outputs import share
from picolm.analyze.partners import Partners
from picolm.analyze.plan import Plan, plan_analysis, without_moving_partners
from picolm.analyze.source import Source, Step, open_source
from picolm.records import table
from picolm.records.rundir import RunDirectory

if TYPE_CHECKING:
    import pandas

Progress = Callable[[int, int, str], None]
"""Called with (matrices done, matrices expected, what is being done)."""


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis gave."""

    rows: pandas.DataFrame
    """All rows the settings ask for, computed now or before."""
    computed: int
    """Rows computed now."""
    folder: Path
    """Where the rows are."""
    skipped: tuple[str, ...]
    """Combinations of metrics and components that were set aside because the metric does not take the data type."""


def analyze_run(run: RunDirectory, config: AnalysisConfig, *, progress: Progress | None = None) -> pandas.DataFrame:
    """The rows of an analysis of a run; missing ones are computed and kept below `analysis/` of the run.

    They are also written where the settings under `monitoring` want them.
    """
    source = open_source(run.path)
    result = run_analysis(source, config, progress=progress)
    for sentence in share(result.rows, run=source.name, config=config, folder=result.folder):
        logging.getLogger(__name__).info(sentence)
    return result.rows


def run_analysis(
    source: Source, config: AnalysisConfig, *, progress: Progress | None = None, unfinished: bool = False
) -> AnalysisResult:
    """The rows of an analysis of a run, with what was done to get them.

    Of an `unfinished` run the chosen steps that exist are analysed; what compares with the last step waits for the end.
    """
    existing = source.steps()
    steps = [step for step in existing if config.chooses(step)] if unfinished else config.chosen_steps(existing)
    plan = plan_analysis(config, steps or [0])
    open_run = cache(lambda path: open_source(Path(path)))
    if unfinished:
        plan = without_moving_partners(plan)
    else:
        _check_targets(plan, source, open_run)
    folder = source.analysis(config.analysis_name)
    known = set(table.read_rows(folder)["fingerprint"])
    partners = Partners(source, steps, open_run)
    wanted: set[str] = set()
    computed = 0
    for position, number in enumerate(steps):
        step = partners.open_step(number)
        tasks = tasks_of_step(plan, step, partners)
        wanted |= {fingerprint for task in tasks for _, fingerprint in task.wanted}
        report = _reporter(progress, position, len(steps), len(tasks), f"step {number}")
        computed += _measure_step(folder, step, _missing(tasks, known), partners, report)
    rows = table.read_rows(folder)
    return AnalysisResult(rows[rows["fingerprint"].isin(wanted)].reset_index(drop=True), computed, folder, plan.skipped)


def follow_run(
    source: Source,
    config: AnalysisConfig,
    *,
    progress: Progress | None = None,
    wait: Callable[[], None] = lambda: time.sleep(POLL_SECONDS),
) -> Iterator[AnalysisResult]:
    """Analyse each checkpoint soon after it is sealed, until the run is finished: a result after every round with news."""
    seen: list[int] = []
    while not _is_finished(source, config):
        existing = source.steps()
        if existing != seen:
            seen = existing
            yield run_analysis(source, config, progress=progress, unfinished=True)
        wait()
    yield run_analysis(source, config, progress=progress)


POLL_SECONDS = 5.0
"""Seconds between two looks for a new checkpoint."""


def _is_finished(source: Source, config: AnalysisConfig) -> bool:
    """Whether no checkpoint that the settings ask for can come any more."""
    existing = source.steps()
    wanted = config.wanted_steps()
    if wanted is not None:
        return set(wanted) <= set(existing)
    return source.last_step is None or (bool(existing) and existing[-1] >= source.last_step)


def _check_targets(plan: Plan, source: Source, open_run: Callable[[str], Source]) -> None:
    for measurement in plan.measurements:
        partner = measurement.partner
        if partner is None or (partner.step is None and partner.run is None):
            continue
        place = source if partner.run is None else open_run(partner.run)
        if partner.step is not None:
            check_step(partner.step, place.steps(), f"{measurement.metric.name}: target_checkpoint")


def _measure_step(folder: Path, step: Step, tasks: list[Task], partners: Partners, report: Callable[[int], None]) -> int:
    """Compute and keep the rows of these tasks; how many there were."""
    report(0)
    if not tasks:
        return 0
    step.verify(tuple(sorted({data_type for task in tasks for data_type in task.view.component.reads})))
    rows: list[table.Row] = []
    for done, found in enumerate(measure_tasks(tasks, step, partners, workers=usable_cores()), start=1):
        rows += found
        report(done)
    table.append_rows(folder, rows)
    return len(rows)


def _missing(tasks: list[Task], known: set[str]) -> list[Task]:
    """The tasks, without the measurements whose rows exist."""
    reduced = [task._replace(wanted=[pair for pair in task.wanted if pair[1] not in known]) for task in tasks]
    return [task for task in reduced if task.wanted]


def _reporter(progress: Progress | None, position: int, steps: int, tasks: int, text: str) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    return lambda done: progress(position * tasks + done, steps * tasks, text)
