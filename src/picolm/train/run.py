"""Everything a running training consists of, built once by `setup` and handed around as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from picolm.data.loader import BatchLoader
from picolm.model.contract import LanguageModel
from picolm.optim.contract import Schedule
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig
from picolm.train.methods.contract import StepBatch, TrainingMethod

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Silence:
    """Tells nobody: the observer of every process but the first."""

    def row(self, row: dict[str, Any]) -> None:
        """Nothing."""

    def advance(self, step: int) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


class Observer(Protocol):
    """Who is told about progress: a console, a test, nobody."""

    def row(self, row: dict[str, Any]) -> None:
        """A row was added to the log."""

    def advance(self, step: int) -> None:
        """`step` updates are made."""

    def say(self, sentence: str) -> None:
        """Something a person wants to know."""


@dataclass(frozen=True)
class Parts:
    """The objects of a run. `model` is the plain module; `fabric_model` the same parameters as training calls them."""

    config: RunConfig[Any]
    directory: RunDirectory
    fabric: Fabric
    model: LanguageModel
    fabric_model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    method: TrainingMethod
    loader: BatchLoader
    """Rows of this process."""
    whole_loader: BatchLoader
    """Rows of all processes: what a snapshot says about its step."""
    plain_tensors: dict[str, Tensor]
    parameter_names: dict[int, str]
    """id of a parameter -> its name."""
    decode: Callable[[list[int]], str] | None
    compiled: bool
    """Whether `fabric_model` is compiled: then hooks on `model` see nothing of the training pass."""

    @property
    def step_tokens(self) -> int:
        """Predicted tokens of one step, over all processes."""
        return self.whole_loader.batch_sequences * (self.whole_loader.row_length - 1)


@dataclass
class Progress:
    """Where the run is. The only thing that changes while it runs, beside weights and optimiser."""

    step: int = 0
    """Updates made."""
    tokens: int = 0
    """Predicted tokens trained on, over all devices."""
    skipped: int = 0
    """Updates not applied because loss or gradient was not finite."""
    parent: str | None = None
    """Hash of the manifest of the newest sealed checkpoint."""
    sealed: set[int] = field(default_factory=set)
    """Steps that have a sealed checkpoint."""


def step_batch(parts: Parts, step: int, tokens_BT: Tensor) -> StepBatch:
    """This process's rows of a step, cut into micro-batches, on the device."""
    accumulation = parts.config.training.optimization.gradient_accumulation_steps
    on_device_BT = tokens_BT.to(parts.fabric.device, non_blocking=True)
    return StepBatch(step, on_device_BT.chunk(accumulation), parts.step_tokens)
