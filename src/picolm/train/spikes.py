"""Notices a loss far above what the rows before it had, so that a person can go back before the run is wasted."""

from __future__ import annotations

import statistics
from collections import deque

WINDOW_ROWS = 64
LEAST_ROWS = 16
DEVIATIONS = 6.0


class SpikeWatch:
    """Keeps the losses of the last rows."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW_ROWS)

    def is_spike(self, loss: float | None) -> bool:
        """Whether a loss exceeds the mean of the rows before it by six of their standard deviations. None: not finite."""
        if loss is None:
            return False
        before = list(self._losses)
        self._losses.append(loss)
        if len(before) < LEAST_ROWS:
            return False
        return loss > statistics.fmean(before) + DEVIATIONS * max(statistics.stdev(before), 1e-3)
