"""`pico analyze`: steps x components x metrics of a run become tidy rows, each value computed once in a lifetime.

A snapshot is opened once and read lazily; the rows of a step land before the next step is opened; a row whose
fingerprint is already in the table is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.analyze.config import AnalysisConfig, check_step
from picolm.analyze.measure import Partners, Step, Task, measure_tasks, tasks_of_step, usable_cores
from picolm.analyze.plan import Plan, plan_analysis
from picolm.records import table
from picolm.records.manifest import Manifest, read_manifest, verify
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.snapshot import open_snapshot

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
    """The rows of an analysis of a run; missing ones are computed and kept below `analysis/` of the run."""
    return run_analysis(run, config, progress=progress).rows


def run_analysis(run: RunDirectory, config: AnalysisConfig, *, progress: Progress | None = None) -> AnalysisResult:
    """The rows of an analysis of a run, with what was done to get them."""
    available = run.steps()
    steps = config.chosen_steps(available)
    plan = plan_analysis(config, steps[-1])
    for number, measurement in enumerate(plan.measurements):
        if measurement.partner_step is not None:
            check_step(measurement.partner_step, available, f"{plan.measurements[number].metric.name}: target_checkpoint")
    folder = run.analysis(config.analysis_name)
    known = set(table.read_rows(folder)["fingerprint"])
    partners = Partners(cache(lambda step: open_step(run, step)))
    wanted: set[str] = set()
    computed = 0
    for position, number in enumerate(steps):
        step = partners.step(number) if number in _partner_steps(plan) else open_step(run, number)
        tasks = tasks_of_step(plan, step, partners)
        wanted |= {fingerprint for task in tasks for _, fingerprint in task.wanted}
        missing = _missing(tasks, known)
        report = _reporter(progress, position, len(steps), len(tasks), f"step {number}")
        computed += _measure_step(run, folder, step, missing, partners, report)
    rows = table.read_rows(folder)
    return AnalysisResult(rows[rows["fingerprint"].isin(wanted)].reset_index(drop=True), computed, folder, plan.skipped)


def _measure_step(
    run: RunDirectory, folder: Path, step: Step, tasks: list[Task], partners: Partners, report: Callable[[int], None]
) -> int:
    """Compute and keep the rows of these tasks; how many there were."""
    report(0)
    if not tasks:
        return 0
    read_types = {data_type for task in tasks for data_type in task.view.component.reads}
    verify(run.checkpoint(step.step), parts=["weights"] if read_types == {"weights"} else ["weights", "learning_dynamics"])
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


def _partner_steps(plan: Plan) -> set[int]:
    return {each.partner_step for each in plan.measurements if each.partner_step is not None}


def open_step(run: RunDirectory, number: int) -> Step:
    """A step of a run on disk, its snapshots opened when asked for."""
    identity = run.identity()
    manifest = read_manifest(run.checkpoint(number))
    return Step(
        run=run.name,
        step=number,
        snapshot=cache(lambda split: open_snapshot(run.checkpoint(number), number, split or "val")),
        hashes=lambda split, data_types: stored_hashes(manifest, split, data_types),
        variant=str(identity.get("variant") or ""),
        seed=_seed(identity),
        tokens=manifest.tokens,
    )


def stored_hashes(manifest: Manifest, split: str, data_types: tuple[str, ...]) -> list[str]:
    """SHA-256 of the files that tensors of these types are read from; `absent` where there is none."""
    inside = CheckpointFolder(Path())
    files = {name: record.sha256 for records in manifest.parts.values() for name, record in records.items()}
    wanted = [inside.layout]
    for data_type in data_types:
        wanted.append(inside.weights if data_type == "weights" else inside.dynamics_tensors(split, data_type))
    return [files.get(path.as_posix(), "absent") for path in wanted]


def _seed(identity: dict[str, Any]) -> int | None:
    seed = identity.get("seed")
    return int(seed) if isinstance(seed, int) else None
