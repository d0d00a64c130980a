"""One row of `logs/train.jsonl` per logged step: what the step lost, how large the gradient was, how fast it went."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from picolm.model.contract import flops_per_token
from picolm.records import trainlog
from picolm.train.methods.contract import StepResult
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
        self._flops_per_token = flops_per_token(parts.config.model, parts.whole_loader.row_length - 1)
        self._peak_flops = peak_flops_of(parts.fabric)

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Time inside the block is not training time."""
        begun = time.perf_counter()
        yield
        self._paused_seconds += time.perf_counter() - begun

    def after_update(self, step: int, result: StepResult, gradient_norm: Tensor) -> None:
        """Write a row if this update is due for one. `step` is the number of updates before this one."""
        self._steps_since_row += 1
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
        tokens = self._parts.step_tokens
        loss = float(total(self._parts.fabric, result.loss_sum)) / tokens
        paused_seconds, step_seconds = self._paused_seconds, self._step_seconds()
        limit = optimization.clip_norm
        return {
            "step": step + 1,
            "tokens": self._progress.tokens,
            "loss": _finite(loss),
            "learning_rate": optimization.lr * self._parts.schedule(step),
            "gradient_norm": _finite(gradient_norm),
            "skipped_updates": self._progress.skipped,
            "clip_factor": 1.0 if limit is None else _finite(min(1.0, limit / (gradient_norm + 1e-6))),
            "tokens_per_second": tokens / step_seconds,
            "step_seconds": step_seconds,
            "paused_seconds": paused_seconds,
            "mfu": None if self._peak_flops is None else tokens / step_seconds * self._flops_per_token / self._peak_flops,
            **{name: _finite(float(value)) for name, value in result.series.items()},
        }

    def _step_seconds(self) -> float:
        """Mean training seconds per step since the last row."""
        now = time.perf_counter()
        seconds = (now - self._started - self._paused_seconds) / self._steps_since_row
        self._started, self._paused_seconds, self._steps_since_row = now, 0.0, 0
        return seconds


def _finite(value: float) -> float | None:
    """The value, or None where it is not a number: JSON has no NaN, and a reader shall not take one for a value."""
    return value if math.isfinite(value) else None
