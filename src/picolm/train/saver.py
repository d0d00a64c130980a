"""Writes checkpoints in the background, one at a time and in order; an error reaches the loop at the next checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from safetensors import SafetensorError

from picolm.base.errors import PicoError


class BackgroundSaver:
    """One writer thread at a time. The loop waits for it only when the next checkpoint comes before the last is written.

    Each write has a thread of its own, which ends with it: a thread that has once computed with torch keeps OpenMP workers, and
    as long as those are more than the cores, the workers of the loop sleep between kernels instead of waiting for the next
    (docs/log.md: training on two cores was 24 % slower after the first checkpoint).
    """

    def __init__(self) -> None:
        self._running: Future[None] | None = None
        self._what = ""

    def submit(self, what: str, write: Callable[[], None]) -> float:
        """Write in the background, after the write before is done; the seconds waited for that one."""
        seconds = self.wait()
        self._what = what
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._running = executor.submit(write)
        executor.shutdown(wait=False)
        return seconds

    def wait(self) -> float:
        """Return once nothing is being written; the seconds that took. PicoError if the write failed."""
        running, self._running = self._running, None
        if running is None:
            return 0.0
        begun = time.perf_counter()
        try:
            running.result()
        except (OSError, SafetensorError) as error:
            raise PicoError(
                f"{self._what} could not be written: {error}",
                "nothing half-written was left; free disk space or mend the folder, then repeat the same command",
            ) from error
        return time.perf_counter() - begun

    def close(self) -> None:
        """Finish what is being written."""
        self.wait()
