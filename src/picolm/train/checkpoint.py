"""Scheduled checkpoints: copied before an update, sealed after it, with what the update looked like in between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from picolm.base.config import identity_hash
from picolm.capture.plan import CapturePlan
from picolm.capture.recorder import Recorder
from picolm.capture.writer import SnapshotBatch, write_snapshot
from picolm.model.contract import LanguageModel, save_model
from picolm.records.manifest import Manifest, manifest_hash, sealed_folder
from picolm.records.rundir import CheckpointFolder
from picolm.train.methods.contract import StepBatch
from picolm.train.methods.plain import Plain
from picolm.train.processes import gather
from picolm.train.retention import remove_old_training_states
from picolm.train.run import Parts, Progress
from picolm.train.saver import BackgroundSaver
from picolm.train.state import TrainingState, copy_generators, copy_state, write_state

Evaluator = Callable[[int, int], None]
"""Called with (step, tokens) before a scheduled checkpoint is sealed: scores the live model and writes the scores."""


@dataclass(frozen=True)
class ValBatch:
    """The fixed batch whose activations and gradients are kept with every checkpoint."""

    batch: SnapshotBatch
    micro_batch_sequences: int


@dataclass(frozen=True)
class PendingCheckpoint:
    """A checkpoint that is copied but not yet sealed."""

    model: LanguageModel
    state: TrainingState
    train: Recorder | None
    val: Recorder | None


class Checkpointer:
    """Knows which steps are kept, and carries the one pending checkpoint through its step."""

    def __init__(
        self,
        parts: Parts,
        progress: Progress,
        *,
        plan: CapturePlan | None,
        val: ValBatch | None,
        evaluator: Evaluator,
        tokenizer_file: Path | None,
        may_write: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._progress = progress
        self._plan = plan
        self._val = val
        self._evaluator = evaluator
        self._tokenizer_file = tokenizer_file
        self._may_write = may_write
        self._schedule = frozenset(parts.config.checkpoint_steps)
        self._config_hash = identity_hash(parts.config)
        self._pending: PendingCheckpoint | None = None
        self._saver = BackgroundSaver()
        self._taken = set(progress.sealed)

    def is_due(self, step: int) -> bool:
        """Whether `step` is scheduled and neither sealed nor being written."""
        return step in self._schedule and step not in self._taken

    def close(self) -> None:
        """Return once everything is sealed."""
        self._saver.close()

    def begin(self, step_batch: StepBatch) -> None:
        """On a scheduled step: copy the state, score the model, take the val snapshot. Leaves the training as it was."""
        if not self.is_due(step_batch.step):
            return
        state = self._copy_state(step_batch.step)
        train = None if self._plan is None else Recorder(self._plan)
        with torch.random.fork_rng():
            self._evaluator(step_batch.step, self._progress.tokens)
            val = self._observe_val()
        if train is not None and self._parts.compiled:
            self._observe_uncompiled(train, step_batch)
        self._pending = PendingCheckpoint(self._copy_model(), state, train, val)

    def observing(self) -> AbstractContextManager[None]:
        """Around forward and backward: keeps activations if a snapshot is pending and the pass can be looked into."""
        recorder = self._train_recorder
        if recorder is None or self._parts.compiled:
            return nullcontext()
        return recorder.activations_of(self._parts.model)

    def copy_gradients(self) -> None:
        """Between backward and clipping: keeps gradients if a snapshot is pending."""
        if self._train_recorder is not None:
            self._train_recorder.copy_gradients(self._parts.plain_tensors)

    def observing_update(self) -> AbstractContextManager[None]:
        """Around the update: keeps what it changed if a snapshot is pending."""
        recorder = self._train_recorder
        return nullcontext() if recorder is None else recorder.updates_of(self._parts.plain_tensors)

    def finish(self, applied: bool) -> bool:
        """Seal the pending checkpoint, if there is one; whether one was. `applied`: whether the update was."""
        pending, self._pending = self._pending, None
        if pending is None:
            return False
        for recorder in (pending.train, pending.val):
            if recorder is not None:
                self._gather_activations(recorder)
        self._submit(pending, applied)
        return True

    def save_between(self, step: int) -> None:
        """Seal weights and training state at a step that is not scheduled, so that the run can continue from it."""
        if step not in self._taken:
            self._submit(PendingCheckpoint(self._copy_model(), self._copy_state(step), None, None), applied=False)

    @property
    def _train_recorder(self) -> Recorder | None:
        return None if self._pending is None else self._pending.train

    def _copy_state(self, step: int) -> TrainingState:
        parts = self._parts
        return copy_state(
            step=step,
            tokens=self._progress.tokens,
            skipped=self._progress.skipped,
            optimizer=parts.optimizer,
            names=parts.parameter_names,
            method_state=parts.method.state(),
            generators=self._gather_generators(),
        )

    def _gather_generators(self) -> list[dict[str, Tensor]]:
        """The random state of every process."""
        fabric, own = self._parts.fabric, copy_generators()
        gathered = {name: gather(fabric, state) for name, state in own.items()}
        return [{name: states[rank].cpu() for name, states in gathered.items()} for rank in range(fabric.world_size)]

    def _copy_model(self) -> LanguageModel:
        return copy.deepcopy(self._parts.model).to("cpu")

    def _observe_val(self) -> Recorder | None:
        """Forward and backward over the val batch, shared between processes; gradients are copied and cleared."""
        if self._plan is None or self._val is None:
            return None
        parts, recorder = self._parts, Recorder(self._plan)
        whole_BT = torch.from_numpy(self._val.batch.tokens)
        share_BT = whole_BT.tensor_split(parts.fabric.world_size)[parts.fabric.global_rank].to(parts.fabric.device)
        batch = StepBatch(0, torch.split(share_BT, self._val.micro_batch_sequences), whole_BT.numel() - len(whole_BT))
        parts.fabric_model.eval()
        if parts.compiled:
            self._observe_uncompiled(recorder, batch)
        with nullcontext() if parts.compiled else recorder.activations_of(parts.model):
            Plain().forward_backward(parts.fabric_model, batch, parts.fabric)
        parts.fabric_model.train()
        recorder.copy_gradients(parts.plain_tensors)
        parts.optimizer.zero_grad(set_to_none=True)
        return recorder

    def _observe_uncompiled(self, recorder: Recorder, batch: StepBatch) -> None:
        """Activations from a pass of their own over the same micro-batches, with the random state put back after it."""
        parts = self._parts
        with torch.random.fork_rng(), torch.no_grad(), parts.fabric.autocast(), recorder.activations_of(parts.model):
            for tokens_BT in batch.micro_batches:
                parts.model(tokens_BT[:, :-1])

    def _gather_activations(self, recorder: Recorder) -> None:
        """Activations of all processes in the order of the rows; processes may hold different numbers of them."""
        fabric = self._parts.fabric
        if fabric.world_size == 1:
            return
        for name, own_SX in recorder.activations.items():
            counts = gather(fabric, torch.tensor(len(own_SX))).tolist()
            padded_SX = torch.nn.functional.pad(own_SX, (0, 0, 0, max(counts) - len(own_SX)))
            gathered_WSX = gather(fabric, padded_SX)
            recorder.activations[name] = torch.cat([gathered_WSX[rank, :count] for rank, count in enumerate(counts)])

    def _submit(self, pending: PendingCheckpoint, applied: bool) -> None:
        step = pending.state.step
        self._taken.add(step)
        if self._parts.fabric.is_global_zero:
            self._saver.submit(f"checkpoint {step}", lambda: self._seal(pending, applied))

    def _seal(self, pending: PendingCheckpoint, applied: bool) -> None:
        """Write and seal: runs in the writer thread, on copies only."""
        self._may_write()
        state, loader = pending.state, self._parts.whole_loader
        folder = self._parts.directory.checkpoint(state.step)
        manifest = Manifest(
            step=state.step,
            tokens=state.tokens,
            parent=self._progress.parent,
            config_hash=self._config_hash,
            data_fingerprint=loader.fingerprint,
        )
        with sealed_folder(folder, manifest) as temporary:
            checkpoint = CheckpointFolder(temporary)
            self._write_model(checkpoint, pending.model)
            write_state(checkpoint.training_state, state)
            if pending.train is not None:
                batch = SnapshotBatch(
                    loader.rows_of_step(state.step), loader.batch_of_step(state.step).numpy(), loader.fingerprint
                )
                self._write_snapshot(temporary, pending.train, "train", state, batch, applied)
            if pending.val is not None and self._val is not None:
                self._write_snapshot(temporary, pending.val, "val", state, self._val.batch, False)
        self._progress.parent = manifest_hash(folder)
        self._progress.sealed.add(state.step)
        remove_old_training_states(self._parts.directory, self._parts.config.checkpointing.keep_training_states)

    def _write_model(self, checkpoint: CheckpointFolder, model: LanguageModel) -> None:
        save_model(model, checkpoint.path, tokenizer_file=self._tokenizer_file)
        if "pytorch" in self._parts.config.checkpointing.formats:
            checkpoint.native_weights.parent.mkdir()
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, checkpoint.native_weights)

    def _write_snapshot(
        self, folder: Path, recorder: Recorder, split: str, state: TrainingState, batch: SnapshotBatch, applied: bool
    ) -> None:
        write_snapshot(
            folder,
            recorder,
            split=split,
            step=state.step,
            training_tokens=state.tokens,
            batch=batch,
            decode=self._parts.decode,
            applied=applied,
        )
