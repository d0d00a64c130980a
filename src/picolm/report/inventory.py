"""What exists in a folder of runs, and whether what exists is still what was sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import manifest
from picolm.records.rundir import RunDirectory
from picolm.report.health import progress_of_run
from picolm.report.tables import RunTables, read_run
from picolm.report.visible import visible_text
from picolm.report.words import quantity


def inventory(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """One row per run: name, variant, seed, updates, tokens, last loss, checkpoints; a damaged run has its `problem` instead."""
    return [_row(run) for run in runs]


def _row(run: RunDirectory) -> dict[str, Any]:
    empty = {"variant": "", "seed": "", "updates": "", "tokens": "", "loss": "", "checkpoints": "", "problem": ""}
    try:
        tables = read_run(run, rows=False)
    except PicoError as error:
        return {"name": visible_text(run.name), **empty, "problem": visible_text(error.message)}
    progress = progress_of_run(tables)
    return {
        "name": visible_text(run.name),
        "variant": tables.variant,
        "seed": "" if tables.seed is None else tables.seed,
        "updates": f"{progress.step}/{progress.max_steps}" if progress.max_steps is not None else str(progress.step),
        "tokens": quantity(progress.tokens).strip() if progress.tokens is not None else "",
        "loss": _last_loss(tables),
        "checkpoints": progress.checkpoints,
        "problem": "",
    }


def _last_loss(tables: RunTables) -> str:
    if "loss" not in tables.log.columns or tables.log["loss"].dropna().empty:
        return ""
    return f"{float(tables.log['loss'].dropna().iloc[-1]):.4f}"


def find_run_damage(run: RunDirectory) -> dict[int, list[str]]:
    """Step -> one sentence for each file that is not what its manifest says. Every file is read and hashed again."""
    steps = run.steps()
    if not steps:
        raise PicoError(f"{run.path} has no sealed checkpoint", "`pico train` seals one at step 0")
    found: dict[int, list[str]] = {}
    for step in steps:
        folder = run.checkpoint(step)
        found[step] = [visible_text(problem) for problem in _problems(folder)]
    return found


def _problems(folder: Any) -> list[str]:
    try:
        return manifest.find_damage(folder, manifest.read_manifest(folder), partial=True)
    except PicoError as error:
        return [error.message]
