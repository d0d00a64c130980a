"""Everything a running training consists of, built once by `setup` and handed around as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from picolm.data.loader import BatchLoader
from picolm.model.contract import LanguageModel
from picolm.optim.contract import Schedule
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig
from picolm.train.loss_scale import LossScale
from picolm.train.methods.contract import StepBatch, StepResult, TrainingMethod

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
    loss_scale: LossScale
    loader: BatchLoader
    """Rows of this process."""
    whole_loader: BatchLoader
    """Rows of all processes: what a snapshot says about its step."""
    plain_tensors: dict[str, Tensor]
    effective_tensors: Mapping[str, Tensor]
    """Plain name -> the weight that acts, possibly in a wider type; computed whenever it is looked up."""
    trained: dict[str, nn.Parameter]
    """Name -> every parameter the optimiser changes, a method's own included."""
    plain_flops: float
    """Floating-point operations of plain training per token."""
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
    """Predicted tokens trained on as a language model, over all devices."""
    method_tokens: int = 0
    """Tokens the method used for another purpose."""
    flops: float = 0.0
    """Floating-point operations of all training so far."""
    method_flops: float = 0.0
    """Those of them that were spent on the method's own tokens."""
    skipped: int = 0
    """Updates not applied because loss or gradient was not finite."""
    parent: str | None = None
    """Hash of the manifest of the newest sealed checkpoint."""
    sealed: set[int] = field(default_factory=set)
    """Steps that have a sealed checkpoint."""


def advance(parts: Parts, progress: Progress, step: int, result: StepResult) -> None:
    """Count one step and what it worked on."""
    tokens = 0 if result.loss_sum is None else parts.step_tokens
    progress.step, progress.tokens = step + 1, progress.tokens + tokens
    progress.method_tokens += result.method_tokens
    progress.method_flops += result.method_flops
    progress.flops += tokens * parts.method.flops_per_token(parts.plain_flops, parts.model, step) + result.method_flops


def step_batch(parts: Parts, step: int, tokens_BT: Tensor) -> StepBatch:
    """This process's rows of a step, cut into micro-batches, on the device."""
    accumulation = parts.config.training.optimization.gradient_accumulation_steps
    on_device_BT = tokens_BT.to(parts.fabric.device, non_blocking=True)
    return StepBatch(step, on_device_BT.chunk(accumulation), parts.step_tokens)
