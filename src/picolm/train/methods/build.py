"""Makes the training method that a configuration names, and tells it about its run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from picolm.base.registry import checked_options
from picolm.train.methods.contract import METHODS, RunFacts, TrainingMethod

if TYPE_CHECKING:
    from picolm.train.config import RunConfig


def build_method(config: RunConfig[Any], *, row_tokens: int, rows_of_step: Callable[[int], Tensor]) -> TrainingMethod:
    """The training method, with its options checked, ready for the run."""
    named, training = config.training.method, config.training
    kind = METHODS.find(named.name)
    method: TrainingMethod = kind(**checked_options(kind, named.options, f"training.method ({named.name})"))
    facts = RunFacts(
        seed=training.seeds.method,
        max_steps=training.max_steps,
        warmup_steps=training.optimization.lr_warmup_steps,
        batch_sequences=config.data.dataloader.batch_size,
        row_tokens=row_tokens,
        rows_of_step=rows_of_step,
    )
    method.begin_run(facts)
    return method
