"""The training loop. A batch of rows comes in from `data/loader`; the method turns it into a gradient; the optimiser into
an update; the log gets a row. On a scheduled step the checkpointer copies what was before and seals it after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from picolm.train.checkpoint import Checkpointer
from picolm.train.guard import accepts
from picolm.train.log import StepLog
from picolm.train.loss_scale import are_finite
from picolm.train.methods.contract import Series, StepBatch, StepResult
from picolm.train.processes import agree
from picolm.train.run import Observer, Parts, Progress, advance, step_batch
from picolm.train.state import copy_generators, restore_generators
from picolm.train.stop import StopFlag


def train(parts: Parts, progress: Progress, checkpointer: Checkpointer, observer: Observer, stop: StopFlag) -> bool:
    """Run updates until `max_steps` or a request to stop; True if the run is complete, False if it was stopped."""
    last = parts.config.training.max_steps
    log = StepLog(parts, progress, observer)
    for step, tokens_BT in parts.loader.prefetched(progress.step, last):
        stopping = agree(parts.fabric, stop.requested)
        if stopping and not checkpointer.is_due(step):
            checkpointer.save_between(step)
            return False
        batch = step_batch(parts, step, tokens_BT)
        with log.pausing():
            checkpointer.begin(batch)
        result = compute_gradient(parts, batch, checkpointer)
        gradient_norm = clip_gradients(parts.trained, parts.config.training.optimization.clip_norm)
        applied = accepts(parts, progress, step, result, gradient_norm)
        with checkpointer.observing_update():
            said = update(parts, step, applied)
        advance(parts, progress, step, result)
        log.after_update(step, result, said, gradient_norm)
        with log.pausing():
            sealed = checkpointer.finish(applied)
        observer.advance(progress.step)
        if stopping and sealed:
            return False  # continues from the checkpoint just sealed; the update after it is made again, identically
    finish(parts, checkpointer, last)
    return True


def compute_gradient(parts: Parts, batch: StepBatch, checkpointer: Checkpointer) -> StepResult:
    """The method's gradient, looked into on scheduled steps. With `16-mixed`, made again from the start if it overflowed."""
    generators = copy_generators() if parts.loss_scale.active else None

    def attempt() -> StepResult:
        parts.optimizer.zero_grad(set_to_none=True)
        if generators is not None:
            restore_generators(generators)
        with checkpointer.observing():  # does nothing on ordinary steps
            result = parts.method.forward_backward(parts.fabric_model, batch, parts.fabric)
        parts.loss_scale.unscale(parts.trained.values())
        return result

    def overflowed(result: StepResult) -> bool:
        if agree(parts.fabric, result.loss_sum is not None and not are_finite([result.loss_sum])):
            return False  # the loss itself is not finite: no scale can help
        return agree(parts.fabric, not are_finite(gradients_of(parts.trained)))

    result = parts.loss_scale.fitting(attempt, overflowed)
    checkpointer.copy_gradients(result.objective)
    if parts.loss_scale.active:
        result = replace(result, series={**result.series, "loss_scale": parts.loss_scale.value})
    return result


def update(parts: Parts, step: int, applied: bool) -> Series:
    """Apply one update at the schedule's learning rate, unless it is to be skipped, and clear the gradients.

    Returns what the method has to say about it.
    """
    for group in parts.optimizer.param_groups:
        group["lr"] = parts.config.training.optimization.lr * parts.schedule(step)
    if applied:
        parts.optimizer.step()
    said = parts.method.after_update(step, parts.model, parts.optimizer, applied=applied)
    parts.optimizer.zero_grad(set_to_none=True)
    return said


def clip_gradients(parameters: Mapping[str, Tensor], limit: float | None) -> Tensor:
    """The norm of the gradient over all parameters before clipping; gradients are scaled down if it exceeds `limit`."""
    norm = torch.nn.utils.get_total_norm(gradients_of(parameters))
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(list(parameters.values()), limit, norm)
    return norm


def gradients_of(parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """The gradients of those that have one."""
    return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]


def finish(parts: Parts, checkpointer: Checkpointer, last: int) -> None:
    """The final snapshot: the next batch runs forward and backward, and no update follows."""
    if not checkpointer.is_due(last):
        return
    batch = step_batch(parts, last, parts.loader.batch_of_step(last))
    checkpointer.begin(batch)
    compute_gradient(parts, batch, checkpointer)
    parts.optimizer.zero_grad(set_to_none=True)
    checkpointer.finish(False)
