"""Train a configuration to its end: check, lock, begin or continue, loop, say what happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from picolm.model.kernel import attention_kernel
from picolm.model.precision import cpu_multiplies
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig
from picolm.train.failures import explained
from picolm.train.fork import Fork
from picolm.train.identity import Membership
from picolm.train.lock import RunLock
from picolm.train.loop import train
from picolm.train.publication import publishing
from picolm.train.resume import begin_or_continue
from picolm.train.run import Observer, Parts, Silence
from picolm.train.setup import Training, build_training
from picolm.train.stop import stop_on_signals
from picolm.train.trackers import tracked


@dataclass(frozen=True)
class Outcome:
    """How a call of `run_training` ended."""

    run: Path
    step: int
    tokens: int
    complete: bool


def run_training(
    config: RunConfig[Any], observer: Observer, fork: Fork | None = None, member: Membership | None = None
) -> Outcome:
    """Start or continue the run that `config` describes. A signal ends it early, saved. Called by every process of the run.

    `fork`: a checkpoint of another run that it begins from. `member`: its place in a study.
    """
    directory = RunDirectory(Path(config.checkpointing.runs_dir) / config.run_name)
    training = build_training(config, directory, fork, member)
    if not training.parts.fabric.is_global_zero:
        return _run(training, Silence(), may_write=lambda: None)
    with explained(directory, config.training.optimization.gradient_accumulation_steps):
        directory.path.mkdir(parents=True, exist_ok=True)
        with RunLock(directory.lock_file) as lock, tracked(config, directory, observer) as tracking:
            return _run(training, tracking, may_write=lock.check)


def _run(training: Training, observer: Observer, may_write: Callable[[], None]) -> Outcome:
    precision = training.parts.config.training.fabric.precision
    with (
        stop_on_signals(observer.say) as stop,
        default_dtype_of(precision),
        publishing(training.parts, training.destination, observer.say) as publication,
    ):
        progress, checkpointer = begin_or_continue(training, may_write, publication.on_sealed, observer.say)
        observer.say(describe_arithmetic(training.parts))
        observer.advance(progress.step)
        try:
            complete = train(training.parts, progress, checkpointer, observer, stop)
        finally:
            checkpointer.close()
        if complete:
            publication.finish()
            for sentence in filter(None, [training.evaluator.report()]):
                observer.say(sentence)
    return Outcome(training.parts.directory.path, progress.step, progress.tokens, complete)


@contextmanager
def default_dtype_of(precision: str) -> Iterator[None]:
    """Fabric casts what a module returns to torch's default type; with `64-true` the loss would lose its digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if precision == "64-true" else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def describe_arithmetic(parts: Parts) -> str:
    """What the forward and backward pass runs on: device, precision, attention kernel, compiled or not."""
    precision, device = parts.config.training.fabric.precision, parts.fabric.device
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "64-true": torch.float64}
    dtype = dtypes.get(precision, torch.float32)
    kernel = attention_kernel(parts.model, tokens=parts.loader.row_length - 1, device=device, dtype=dtype)
    emulated = device.type == "cpu" and not cpu_multiplies(dtype)
    note = f" (in float32: this processor would only emulate {str(dtype).removeprefix('torch.')})" if emulated else ""
    return f"on {device.type}, {precision}{note}, attention by {kernel}{', compiled' if parts.compiled else ''}"
