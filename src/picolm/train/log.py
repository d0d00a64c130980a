"""One row of `logs/train.jsonl` per logged step: what the step lost, how large the gradient was, how fast it went."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from picolm.records import trainlog
from picolm.train.methods.contract import Series, StepResult
from picolm.train.processes import total
from picolm.train.run import Observer, Parts, Progress
from picolm.train.speed import peak_flops_of
from picolm.train.spikes import SpikeWatch


class StepLog:
    """Turns results into rows; keeps the clock, with checkpoints and evaluation taken out."""

    def __init__(self, parts: Parts, progress: Progress, observer: Observer) -> None:
        self._parts = parts
        self._progress = progress
        self._observer = observer
        self._started = time.perf_counter()
        self._paused_seconds = 0.0
        self._steps_since_row = 0
        self._spikes = SpikeWatch()
        self._said: dict[str, Tensor | float] = {}
        self._tokens, self._flops = progress.tokens, progress.flops
        """As of the last row."""
        self._peak_flops = peak_flops_of(parts.fabric)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Time inside the block is not training time."""
        begun = time.perf_counter()
        yield
        self._paused_seconds += time.perf_counter() - begun

    def after_update(self, step: int, result: StepResult, said: Series, gradient_norm: Tensor) -> None:
        """Write a row if this update is due for one. `step` is the number of updates before this one.

        `said`: what the method had to say after it; kept for the next row.
        """
        self._steps_since_row += 1
        self._said.update(said)
        made = step + 1
        every = self._parts.config.monitoring.logging.log_every_n_steps
        if made % every and made != 1 and made != self._parts.config.training.max_steps:
            return
        row = self._row(step, result, float(gradient_norm))
        if not self._parts.fabric.is_global_zero:
            return
        trainlog.append_row(self._parts.directory.log_file, row)
        self._observer.row(row)
        if self._spikes.is_spike(row["loss"]):
            self._observer.say(self._spike_warning(row))

    def _spike_warning(self, row: dict[str, Any]) -> str:
        before = max((step for step in self._progress.sealed if step < row["step"]), default=0)
        return (
            f"warning: the loss of step {row['step']}, {row['loss']:.3f}, is far above the rows before it; to go back: the same "
            f"command with --fork-from {self._parts.directory.path}@{before} --set checkpointing.run_name=NAME"
        )

    def _row(self, step: int, result: StepResult, gradient_norm: float) -> dict[str, Any]:
        optimization = self._parts.config.training.optimization
        progress = self._progress
        steps, paused_seconds, step_seconds = self._steps_since_row, self._paused_seconds, self._step_seconds()
        tokens, flops = (progress.tokens - self._tokens) / steps, (progress.flops - self._flops) / steps
        self._tokens, self._flops = progress.tokens, progress.flops
        series, self._said = {**result.series, **self._said}, {}
        limit = optimization.clip_norm
        return {
            "step": step + 1,
            "tokens": progress.tokens,
            "loss": self._loss(result),
            "learning_rate": optimization.lr * self._parts.schedule(step),
            "gradient_norm": _finite(gradient_norm),
            "skipped_updates": progress.skipped,
            "clip_factor": 1.0 if limit is None else _finite(min(1.0, limit / (gradient_norm + 1e-6))),
            "tokens_per_second": tokens / step_seconds,
            "step_seconds": step_seconds,
            "paused_seconds": paused_seconds,
            "mfu": None if self._peak_flops is None else flops / step_seconds / self._peak_flops,
            "flops": progress.flops,
            "method_tokens": progress.method_tokens,
            "method_flops": progress.method_flops,
            **{name: _finite(float(value)) for name, value in series.items()},
        }

    def _loss(self, result: StepResult) -> float | None:
        if result.loss_sum is None:
            return None
        return _finite(float(total(self._parts.fabric, result.loss_sum)) / self._parts.step_tokens)

    def _step_seconds(self) -> float:
        """Mean training seconds per step since the last row."""
        now = time.perf_counter()
        seconds = (now - self._started - self._paused_seconds) / self._steps_since_row
        self._started, self._paused_seconds, self._steps_since_row = now, 0.0, 0
        return seconds


def _finite(value: float) -> float | None:
    """The value, or None where it is not a number: JSON has no NaN, and a reader shall not take one for a value."""
    return value if math.isfinite(value) else None
