"""What a training method looks like. The loop asks these questions and never which method it is talking to.

The life of a method, in the order of the calls:

1. It is made with its options: keyword-only, typed parameters of `__init__`. Draw nothing and read nothing there.
2. `begin_run(facts)`, `wrap_model`, `wrap_schedule`, `plain_tensors`, `effective_tensors`: once, before anything is written.
   `pico plan` does the same with a model on the device `meta`, so a layer that is added must be made like its neighbours.
3. Of a run that is continued or forked: weights and optimiser are put back, then `restore`. Always: `start(step)`.
4. For every update `forward_backward`, then, after clipping and the optimiser's step, `after_update`.
5. Whenever a checkpoint is due, between two updates: `state` and `plain_model`.

What a method promises, and the conformance check tests: it learns; a resumed run equals an uninterrupted one, bit for bit; its
plain tensors have the same names as those of `plain`; `plain_model` computes what the trained model computes; it draws from no
random stream but its own (`draws_for` with the seed in `RunFacts`) and, in a forward pass, torch's global one; the split into
micro-batches changes nothing; two processes train as one, if `supports` says so.
"""

from __future__ import annotations

import abc
import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from picolm.base.registry import Registry
from picolm.capture.recorder import LANGUAGE_MODEL
from picolm.model.contract import LanguageModel
from picolm.optim.contract import Schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

METHODS = Registry(
    "training method",
    builtin_modules=("picolm.train.methods.plain", "picolm.train.methods.relora", "picolm.train.methods.maml"),
)

SEVERAL_PROCESSES = "several processes"
COMPILED = "compile"
SCALED_LOSS = "float16, which needs a scaled loss"

Series = Mapping[str, Tensor | float]
"""Name -> value: each name becomes a column of the log. One name is one quantity, never a mixture of two losses."""


@dataclass(frozen=True)
class RunFacts:
    """What a method may know of its run."""

    seed: int
    """`training.seeds.method`, the same in every process."""
    max_steps: int
    warmup_steps: int
    batch_sequences: int
    """Rows of one step over all processes."""
    row_tokens: int
    """Predicted tokens of a row."""
    rows_of_step: Callable[[int], Tensor]
    """Step -> its rows of all processes, int64 (B, T + 1) on the CPU: any step, at any time."""


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
    """What one step reports: the language-model loss of this process, and the method's own named scalars.

    The counts are sums over all processes and belong to work beside the language model: episodes, extra passes.
    """

    loss_sum: Tensor | None
    """Scalar, detached: cross-entropy in nats summed over this process's predicted tokens. None: no language-model loss was
    computed in this step, in any process; the log then has no loss, and the step's rows count as no language-model tokens."""
    series: Series = field(default_factory=dict)
    method_tokens: int = 0
    """Tokens that went through the model for another purpose than the language-model loss."""
    method_flops: float = 0.0
    """Floating-point operations on them."""
    objective: str = LANGUAGE_MODEL
    """What the gradient is of, in words: snapshots say it."""


@dataclass(frozen=True)
class MethodState:
    """What must survive a restart. What is a pure function of the step needs no state."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """JSON values, the same in every process."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The same in every process; stored exactly as they are."""
    process_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of this process alone: same names and shapes everywhere. Empty on `restore` if the number of processes has changed."""


class PlannedStep(NamedTuple):
    """What a step is expected to work on, over all processes: `pico plan` adds it up."""

    language_model_tokens: float
    method_tokens: float = 0.0
    method_flops: float = 0.0


class TrainingMethod(abc.ABC):
    """One way to train. Only `forward_backward` is required; the other answers default to "nothing special"."""

    supports: ClassVar[frozenset[str]] = frozenset({SEVERAL_PROCESSES, COMPILED})
    """Ways to run under which the method keeps its promises. Any other is refused before the run begins.

    `SCALED_LOSS` may be added where every gradient comes from `fabric.backward`, which multiplies the loss by a scale in
    `16-mixed`; the loop divides all gradients by it afterwards.
    """

    is_language_model_pass: bool = True
    """Whether a step calls the model once on each micro-batch, with its labels, and on nothing else. If not, the activations and
    circuit gradients of a snapshot come from a pass of their own over the step's rows, and no micro-batch has a gradient norm."""

    trains_all_parameters: bool = True
    """Whether every step gives a gradient to every parameter that requires one. If not, set it to False, in `begin_run` at the
    latest: data parallelism then looks for those without one."""

    brief_options: ClassVar[Mapping[str, Any]] = {}
    """Options under which everything special about the method happens within eight updates: the conformance check's."""

    def begin_run(self, facts: RunFacts) -> None:  # noqa: B027 - an optional answer
        """Learn about the run; called before everything else. PicoError for options that do not fit it."""

    def wrap_model(self, model: LanguageModel) -> LanguageModel:
        """The model to train, changed in place if need be (adapters, heads), of the same function as before.

        Called once, before the optimiser is built over all its parameters. Modules keep their plain names, parameters that
        stand for plain tensors theirs, and layers that are added begin from `draws_for`, never from the global stream.
        """
        return model

    def wrap_schedule(self, schedule: Schedule) -> Schedule:
        """The schedule to follow, as a factor on the peak learning rate: for methods that re-warm, restart or scale it."""
        return schedule

    def start(self, step: int, model: LanguageModel, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027
        """Called once, after weights, optimiser and `restore`: `step` updates are made. Bring the model into its phase."""

    @abc.abstractmethod
    def forward_backward(self, model: nn.Module, batch: StepBatch, fabric: Fabric) -> StepResult:
        """Leave in `.grad` the gradient of the mean loss over `batch.global_tokens`; use `fabric.backward`.

        Data parallelism averages gradients over processes, in the last backward pass outside `fabric.no_backward_sync`.
        `language_model_step` does this for next-token prediction, with extra terms of the loss if there are any. Also called
        on the step after the last one, whose gradient is captured and never applied, and again for a step whose gradient
        overflowed in `16-mixed`: decide by `batch.step`, count nothing.
        """

    def after_update(self, step: int, model: LanguageModel, optimizer: torch.optim.Optimizer, *, applied: bool) -> Series:
        """Called after the update that made `step + 1` updates: merges, resets, moving averages. What to say about it.

        `optimizer.state[parameter]` holds the live moments by name (`exp_avg`, ...): what is changed there counts from the next
        update on. `applied`: False if the update was skipped because loss or gradient was not finite; the step counts all the
        same. A value returned on a step that is not logged appears in the next row. The gradients are still there.
        """
        return {}

    def plain_tensors(self, model: LanguageModel) -> dict[str, Tensor]:
        """Plain name -> parameter it stands for: the same names in every variant. Their `.grad` is what capture keeps."""
        return {name.removesuffix(".weight"): parameter for name, parameter in model.named_parameters()}

    def effective_tensors(self, model: LanguageModel) -> Mapping[str, Tensor]:
        """Plain name -> the weight that acts in the forward pass, for snapshots of weights and updates.

        Asked for once, read at any time: where it is not the parameter itself, give a mapping that computes an entry when it is
        looked up; in a wider type than the parameter's, if that keeps differences exact.
        """
        return self.plain_tensors(model)

    def plain_model(self, model: LanguageModel) -> LanguageModel:
        """A copy on the CPU without anything that `wrap_model` added: its parameters are the effective tensors.

        This is what a checkpoint's model folder holds; what training continues from, if it is another, belongs into `state`.
        """
        return copy.deepcopy(model).to("cpu")

    def frozen_modules(self, model: LanguageModel) -> Mapping[str, nn.Module]:
        """Plain name -> linear module whose weight acts but gets no gradient in this phase.

        On a captured step its gradient is computed from the module's input x and output gradient, Σ δ xᵀ, so that every variant
        has gradients under the same names.
        """
        return {}

    def update_ranks(self, model: LanguageModel) -> Mapping[str, int]:
        """Plain name -> largest rank that the next update of this tensor can have, if that is less than full.

        Rows of an analysis say so, because a condition number or a share of directions means something else then.
        """
        return {}

    def flops_per_token(self, plain: float, model: LanguageModel, step: int) -> float:
        """Operations to train the language model on one token in this step; `plain`: those of plain training. Called often."""
        return plain

    def planned_step(self, step: int, model: LanguageModel, tokens: int, plain_flops: float) -> PlannedStep:
        """What a step is expected to work on; `tokens`: predicted tokens of its rows, `plain_flops`: operations on one."""
        return PlannedStep(tokens)

    def state(self, model: LanguageModel) -> MethodState:
        """What must survive a restart beside the weights in `plain_model`, the optimiser and the random streams of torch."""
        return MethodState()

    def restore(self, state: MethodState, model: LanguageModel) -> None:  # noqa: B027 - an optional answer
        """Take back what `state` gave, also from a run with other options: PicoError if that cannot be."""


def draws_for(seed: int, purpose: str, *numbers: int) -> torch.Generator:
    """The random stream of one purpose: `draws_for(facts.seed, "relora.a/layers.0.attention.v_proj", reset)`.

    It depends on nothing but its key (SHA-256), so there is no generator to carry along or to save: every process draws the same,
    and a resumed run goes on as if it had never stopped.
    """
    key = "/".join(["picolm.method", purpose, str(seed), *map(str, numbers)])
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
