"""What a training method looks like. The loop asks these questions and never which method it is talking to."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from picolm.base.registry import Registry
from picolm.model.contract import LanguageModel
from picolm.optim.contract import Schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

METHODS = Registry("training method", builtin_modules=("picolm.train.methods.plain",))


@dataclass(frozen=True)
class StepBatch:
    """The token rows of one optimiser step that this process works on."""

    step: int
    """Number of updates made before this one."""
    micro_batches: Sequence[Tensor]
    """int64 (b, T + 1) each, on the device, in the declared order."""
    global_tokens: int
    """Predicted tokens of the step over all processes: the denominator of the loss."""


@dataclass(frozen=True)
class StepResult:
    """What one step reports: the loss summed over this process's tokens, and the method's own named scalars."""

    loss_sum: Tensor
    """Scalar, detached: cross-entropy in nats summed over this process's predicted tokens."""
    series: Mapping[str, Tensor | float] = field(default_factory=dict)
    """Name -> value; each name becomes a column of the log. Never a mixture of two losses."""


class TrainingMethod(abc.ABC):
    """One way to train. Only `forward_backward` is required; the other answers default to "nothing special"."""

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        """The model to train, changed in place if need be (adapters, heads). Called once, before the optimiser is built."""
        return model

    def wrap_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule to follow, for methods that re-warm or restart."""
        return schedule

    @abc.abstractmethod
    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """Leave in `.grad` the gradient of the mean loss over `batch.global_tokens`; use `fabric.backward`."""

    def after_update(self, step: int, model: LanguageModel, optimizer: Any) -> None:  # noqa: B027 - an optional answer
        """Called after the update that made `step + 1` updates: merges, resets, moving averages."""

    def plain_tensors(self, model: LanguageModel) -> dict[str, Tensor]:
        """Plain name -> parameter it stands for: the same names in every variant."""
        return {name.removesuffix(".weight"): parameter for name, parameter in model.named_parameters()}

    def state(self) -> dict[str, Any]:
        """What must survive a restart, as JSON values; tensors belong into parameters or the optimiser."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - an optional answer
        """Take back what `state` gave."""
