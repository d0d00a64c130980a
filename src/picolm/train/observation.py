"""Looks into one training step: keeps activations, gradients and the update of the step, and of the fixed val batch.

Used for scheduled checkpoints and for analysis inside the loop. Nothing that the training computes is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from picolm.capture.plan import CapturePlan
from picolm.capture.recorder import Recorder
from picolm.capture.writer import SnapshotBatch
from picolm.train.loss_scale import are_finite
from picolm.train.methods.contract import StepBatch
from picolm.train.methods.plain import Plain
from picolm.train.processes import agree, average_gradients, gather, total
from picolm.train.run import Parts

if TYPE_CHECKING:
    from lightning_fabric.wrappers import _FabricModule


@dataclass(frozen=True)
class ValBatch:
    """The fixed batch whose activations and gradients are kept with every checkpoint."""

    batch: SnapshotBatch
    micro_batch_sequences: int


@dataclass(frozen=True)
class Observed:
    """What was seen of one step."""

    train: Recorder | None = None
    val: Recorder | None = None


NOTHING = Observed()


class StepObservation:
    """Watches the steps it is told to; on all others its methods do nothing."""

    def __init__(self, parts: Parts, val: ValBatch | None) -> None:
        self._parts = parts
        self._val = val
        self._watching = NOTHING
        self._batch: StepBatch | None = None

    def begin(self, batch: StepBatch, plan: CapturePlan, *, val: bool) -> None:
        """Watch this step; with `val`, look at the val batch now. Leaves training and random state as they were."""
        with torch.random.fork_rng():
            seen = self._observe_val(plan) if val else None
        train = Recorder(plan, own_pass=self._needs_own_pass)
        if train.own_pass:
            self._observe_uncompiled(train, batch)
        self._watching, self._batch = Observed(train, seen), batch

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Around forward and backward: keeps activations and what is summed up on the way back."""
        recorder, batch, parts = self._watching.train, self._batch, self._parts
        if recorder is None or batch is None:
            yield
            return
        with ExitStack() as watch:
            if not recorder.own_pass:
                watch.enter_context(_inside(recorder, parts))
            if recorder.plan.micro_batch_norms and parts.method.is_language_model_pass:
                tokens = [micro_BT.shape[0] * (micro_BT.shape[1] - 1) for micro_BT in batch.micro_batches]
                scale = parts.loss_scale.value * parts.fabric.world_size / batch.global_tokens
                watch.enter_context(recorder.micro_batches_of(parts.plain_tensors, tokens, scale))
            yield

    @property
    def _needs_own_pass(self) -> bool:
        """Whether the step's own passes cannot be looked into, or are others than the language model's."""
        return self._parts.compiled or not self._parts.method.is_language_model_pass

    def copy_gradients(self, objective: str) -> None:
        """Between backward and clipping: keeps gradients, and what they are of."""
        if self._watching.train is not None:
            self._watching.train.copy_gradients(self._parts.plain_tensors)
            self._watching.train.objective = objective

    @contextmanager
    def observing_update(self) -> Iterator[None]:
        """Around the update: keeps what it changed, and the moments that made it."""
        recorder, parts = self._watching.train, self._parts
        if recorder is not None:
            limits = parts.method.update_ranks(parts.model)
            recorder.update_ranks = {name: limits[name] for name in recorder.plan.tensor_names if name in limits}
        with nullcontext() if recorder is None else recorder.updates_of(parts.effective_tensors, parts.plain_tensors):
            yield
        if recorder is not None and recorder.plan.moments:
            recorder.copy_moments(parts.plain_tensors, parts.optimizer)

    def finish(self) -> Observed:
        """What was seen of the step, by all processes."""
        seen, self._watching, self._batch = self._watching, NOTHING, None
        for recorder in (seen.train, seen.val):
            if recorder is not None and self._parts.fabric.world_size > 1:
                self._gather(recorder)
        return seen

    def _observe_val(self, plan: CapturePlan) -> Recorder | None:
        """Forward and backward over the val batch, shared between processes; gradients are copied and cleared."""
        if self._val is None:
            return None
        parts = self._parts
        whole_BT = torch.from_numpy(self._val.batch.tokens)
        share_BT = whole_BT.tensor_split(parts.fabric.world_size)[parts.fabric.global_rank].to(parts.fabric.device)
        batch = StepBatch(0, torch.split(share_BT, self._val.micro_batch_sequences), whole_BT.numel() - len(whole_BT))
        parts.fabric_model.eval()

        def attempt() -> Recorder:
            recorder = Recorder(plan)
            # Uncompiled: batches of another size would leave kernels behind that the training step then takes instead of its own.
            # Nothing is exchanged: data parallelism would wait for parameters of the method that have no part in this pass.
            with (
                torch.compiler.set_stance("force_eager"),
                parts.fabric.no_backward_sync(cast("_FabricModule", parts.fabric_model), enabled=parts.fabric.world_size > 1),
                _inside(recorder, parts),
            ):
                Plain().forward_backward(parts.fabric_model, batch, parts.fabric)
            parts.loss_scale.unscale(parts.trained.values())
            average_gradients(parts.trained.values(), parts.fabric)
            recorder.copy_gradients(parts.plain_tensors)
            parts.optimizer.zero_grad(set_to_none=True)
            return recorder

        with parts.loss_scale.kept():
            recorder = parts.loss_scale.fitting(attempt, self._overflowed)
        parts.fabric_model.train()
        return recorder

    def _observe_uncompiled(self, recorder: Recorder, batch: StepBatch) -> None:
        """Activations, and circuit gradients, from a pass of their own over the same micro-batches.

        The gradients of parameters are left alone. The random state is put back after it.
        """
        parts = self._parts
        frozen = parts.method.frozen_modules(parts.model)
        if not (recorder.plan.circuits or frozen):
            with torch.random.fork_rng(), parts.fabric.autocast(), recorder.activations_of(parts.model), torch.no_grad():
                for tokens_BT in batch.micro_batches:
                    parts.model(tokens_BT[:, :-1])
            return

        def attempt() -> Recorder:
            loss_scale = parts.loss_scale.value
            scale = parts.fabric.world_size / batch.global_tokens
            with (
                torch.random.fork_rng(),
                parts.fabric.autocast(),
                recorder.activations_of(parts.model),
                recorder.circuits_of(parts.model, loss_scale) as circuits,
                recorder.frozen_of(frozen, loss_scale) as weights,
            ):
                for tokens_BT in batch.micro_batches:
                    loss_sum = parts.model(tokens_BT[:, :-1], labels_BT=tokens_BT[:, 1:])
                    torch.autograd.grad(loss_sum * scale * loss_scale, [*circuits.outputs, *weights.outputs])
                    circuits.outputs.clear()
                    weights.outputs.clear()
            return recorder

        with parts.loss_scale.kept():
            parts.loss_scale.fitting(attempt, self._overflowed)

    def _overflowed(self, recorder: Recorder) -> bool:
        """Whether a gradient that was seen in any process is not finite."""
        seen = [*recorder.gradients.values(), *recorder.frozen.values(), *recorder.ov_gradients.values()]
        return agree(self._parts.fabric, not are_finite(seen))

    def _gather(self, recorder: Recorder) -> None:
        """Put together what the processes saw: activations in the order of the rows, gradients that are not shared as means."""
        fabric = self._parts.fabric
        for name, own_SX in recorder.activations.items():
            counts = gather(fabric, torch.tensor(len(own_SX))).tolist()
            padded_SX = torch.nn.functional.pad(own_SX, (0, 0, 0, max(counts) - len(own_SX)))
            gathered_WSX = gather(fabric, padded_SX)
            recorder.activations[name] = torch.cat([gathered_WSX[rank, :count] for rank, count in enumerate(counts)])
        for name in [name for name in recorder.gradients if name in recorder.frozen]:
            recorder.gradients[name] = total(fabric, recorder.gradients[name]) / fabric.world_size
        for name, own_HDD in recorder.ov_gradients.items():
            recorder.ov_gradients[name] = total(fabric, own_HDD) / fabric.world_size
        if recorder.micro_batch_tokens:
            recorder.micro_batch_tokens = [int(count) for count in self._in_order(recorder.micro_batch_tokens)]
            recorder.micro_batch_squared_norms = {
                name: self._in_order(norms) for name, norms in recorder.micro_batch_squared_norms.items()
            }

    def _in_order(self, own: list[float] | list[int]) -> list[float]:
        """The numbers of all processes; each has as many."""
        gathered: list[float] = gather(self._parts.fabric, torch.tensor(own, dtype=torch.float64)).flatten().tolist()
        return gathered


@contextmanager
def _inside(recorder: Recorder, parts: Parts) -> Iterator[None]:
    """Keep what can be seen in the passes of the uncompiled model inside the block."""
    with ExitStack() as watch:
        watch.enter_context(recorder.activations_of(parts.model))
        watch.enter_context(recorder.frozen_of(parts.method.frozen_modules(parts.model), parts.loss_scale.value))
        if recorder.plan.circuits:
            watch.enter_context(recorder.circuits_of(parts.model, parts.loss_scale.value))
        yield
