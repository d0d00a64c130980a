"""A request to stop: the first signal waits for the end of the step, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED_EXIT_CODE = 75
"""Exit code of a run that was asked to stop and can be continued (EX_TEMPFAIL of sysexits.h)."""

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class StopFlag:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[StopFlag]:
    """A flag that the first signal raises; `say` tells the person what will happen. Handlers are restored at the end."""
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.requested = True
        say(
            f"{signal.Signals(number).name}: finishing this step and saving; the same command continues. Once more stops at once."
        )

    previous = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
