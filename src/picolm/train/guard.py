"""Stands between gradient and update: a step whose loss or gradient is not finite is recorded and not applied."""

from __future__ import annotations

import torch
from safetensors.torch import save
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.train.methods.contract import StepResult
from picolm.train.processes import agree
from picolm.train.run import Parts, Progress
from picolm.train.state import copy_generators


def accepts(parts: Parts, progress: Progress, step: int, result: StepResult, gradient_norm: Tensor) -> bool:
    """Whether the update of `step` may be applied. If not, what happened is written into the run, and the budget shrinks.

    PicoError once more than `training.max_skipped_updates` updates of the run were skipped.
    """
    seen = [gradient_norm] if result.loss_sum is None else [gradient_norm, result.loss_sum]
    finite = all(bool(torch.isfinite(value)) for value in seen)
    if not agree(parts.fabric, not finite):
        return True
    progress.skipped += 1
    path = parts.directory.nonfinite_file(step)
    random_file = parts.directory.nonfinite_random_file(step, parts.fabric.global_rank)
    durable.write_bytes(random_file, save(copy_generators()))
    if parts.fabric.is_global_zero:
        durable.write_json(path, _describe(parts, step, result, gradient_norm))
    allowed = parts.config.training.max_skipped_updates
    if progress.skipped > allowed:
        raise PicoError(
            f"step {step}: loss or gradient is not finite, and {allowed} updates were skipped before; see {path}",
            "lower training.optimization.lr, set training.optimization.clip_norm=1.0, or use training.fabric.precision=32-true",
        )
    return False


def _describe(parts: Parts, step: int, result: StepResult, gradient_norm: Tensor) -> dict[str, object]:
    return {
        "step": step,
        "loss_sum": None if result.loss_sum is None else str(float(result.loss_sum)),
        "gradient_norm": str(float(gradient_norm)),
        "data_fingerprint": parts.whole_loader.fingerprint,
        "rows": parts.whole_loader.rows_of_step(step).tolist(),
        "tensors": {name: _tensor_health(tensor) for name, tensor in parts.trained.items()},
    }


def _tensor_health(tensor: Tensor) -> dict[str, object]:
    gradient = tensor.grad
    return {
        "weight_norm": str(float(tensor.detach().norm())),
        "nonfinite_weights": int((~tensor.detach().isfinite()).sum()),
        "nonfinite_gradients": None if gradient is None else int((~gradient.isfinite()).sum()),
    }
