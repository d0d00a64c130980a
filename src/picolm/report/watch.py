"""Write the page again whenever its runs have something new; the training process is only read, never touched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from picolm.records.rundir import RunDirectory
from picolm.report.health import progress_of_run
from picolm.report.tables import read_run


def watch_runs(
    runs: Sequence[RunDirectory],
    write: Callable[[bool], Path],
    *,
    every_seconds: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Call `write(live)` whenever a file of the runs changed, until all runs are finished; the last page is not live.

    `live` says whether the page should keep refreshing itself in the browser.
    """
    seen: object = None
    while True:
        state = state_of(runs)
        finished = all(progress_of_run(read_run(run, rows=False)).finished for run in runs)
        if state != seen or finished:
            page = write(not finished)
            say(f"written: {page}")
            seen = state
        if finished:
            return page
        sleep(every_seconds)


def state_of(runs: Sequence[RunDirectory]) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file a report reads: differs when any of them has changed."""
    found = []
    for run in runs:
        files = [run.identity_file, run.config_file, run.log_file, *run.evaluations.glob("step_*.json")]
        files += [part for name in run.analysis_names() for part in run.analysis(name).glob("part-*.parquet")]
        steps = [run.checkpoint(step) for step in run.steps()]
        for path in [*files, *steps]:
            if path.exists():
                status = path.stat()
                found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
