"""Progress bars of long work: what is done, how fast and how long yet; nothing on work shorter than two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from picolm.cli.console import say, stderr

if TYPE_CHECKING:
    from picolm.data.prepare import PrepareProgress

QUIET_SECONDS = 2.0
PLAIN_SECONDS = 30.0
"""Between two lines where there is no terminal."""


class PreparationBar:
    """Shows how far a preparation is, on stderr."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:>14}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=stderr,
            transient=True,
        )
        self._task: TaskID | None = None
        self._phase = ""
        self._began = self._phase_began = self._last_line = time.monotonic()

    def __enter__(self) -> PreparationBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def show(self, progress: PrepareProgress) -> None:
        """Take note of progress; draw it if the work is long enough to want it."""
        now = time.monotonic()
        if progress.phase != self._phase:
            self._phase, self._phase_began, self._task = progress.phase, now, None
        if now - self._began < QUIET_SECONDS:
            return
        facts = f"{progress.tokens:,} tokens  {progress.tokens / max(now - self._phase_began, 1e-9):,.0f} tokens/s"
        if stderr.is_terminal:
            self._draw(progress, facts)
        elif now - self._last_line >= PLAIN_SECONDS:
            self._last_line = now
            say(f"{progress.phase}: {progress.done:.0%}  {facts}")

    def _draw(self, progress: PrepareProgress, facts: str) -> None:
        if not self._bar.live.is_started:
            self._bar.start()
        if self._task is None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task(progress.phase, total=1.0, facts=facts)
        self._bar.update(self._task, completed=progress.done, facts=facts)


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """Takes (done, total, what is being done) and draws it on a terminal; None where there is none."""
    if not stderr.is_terminal:
        yield None
        return
    began = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn()
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, total, text: bar.update(
            task, completed=done, total=total, description=text, visible=time.monotonic() - began > QUIET_SECONDS
        )
