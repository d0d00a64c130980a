"""Scheduled checkpoints: copied before an update, sealed after it, with what the update looked like in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

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
from picolm.train.observation import NOTHING, Observed, StepObservation, ValBatch
from picolm.train.online import OnlineAnalysis
from picolm.train.processes import gather
from picolm.train.retention import remove_old_training_states
from picolm.train.run import Parts, Progress
from picolm.train.saver import BackgroundSaver
from picolm.train.state import TrainingState, copy_generators, copy_state, write_state


class Evaluator(Protocol):
    """Scores the live model where that is due, and writes the scores; leaves the training as it was."""

    def __call__(self, step: int, tokens: int, *, is_checkpoint: bool) -> None:
        """`step` updates are made, on `tokens` tokens."""


@dataclass(frozen=True)
class PendingCheckpoint:
    """A checkpoint that is copied but not yet sealed."""

    model: LanguageModel
    state: TrainingState
    seen: Observed = NOTHING


class Checkpointer:
    """Knows which steps are kept, and carries the one pending checkpoint through its step."""

    def __init__(
        self,
        parts: Parts,
        progress: Progress,
        *,
        plan: CapturePlan | None,
        val: ValBatch | None,
        online: OnlineAnalysis | None,
        evaluator: Evaluator,
        tokenizer_file: Path | None,
        may_write: Callable[[], None],
        on_sealed: Callable[[int], None],
    ) -> None:
        self._parts = parts
        self._progress = progress
        self._plan = plan
        self._observation = StepObservation(parts, val)
        self._online = online
        self._measuring = False
        self._val = val
        self._evaluator = evaluator
        self._tokenizer_file = tokenizer_file
        self._may_write = may_write
        self._on_sealed = on_sealed
        first = set() if progress.sealed else {progress.step}  # of a forked run: so that it stands on its own
        self._schedule = frozenset(parts.config.checkpoint_steps) | first
        self._config_hash = identity_hash(parts.config)
        self._pending: PendingCheckpoint | None = None
        self._saver = BackgroundSaver()
        self._taken = set(progress.sealed)

    def is_due(self, step: int) -> bool:
        """Whether `step` is scheduled and neither sealed nor being written."""
        return step in self._schedule and step not in self._taken

    def close(self) -> None:
        """Return once everything is sealed, and every row of an online analysis is on disk."""
        try:
            self._saver.close()
        finally:
            if self._online is not None:
                self._online.close()

    def begin(self, step_batch: StepBatch) -> None:
        """On a scheduled step: copy the state, score the model, look at the val batch. Leaves the training as it was."""
        step = step_batch.step
        due, self._measuring = self.is_due(step), self._online is not None and self._online.is_due(step)
        state = self._copy_state(step) if due else None
        self._evaluator(step, self._progress.tokens, is_checkpoint=due)
        self._watch(step_batch, due)
        if state is not None:
            self._pending = PendingCheckpoint(self._copy_model(), state)

    def _watch(self, step_batch: StepBatch, due: bool) -> None:
        """Look into the step if a snapshot or an online analysis wants it."""
        online = self._online if self._measuring else None
        if online is not None:
            online.begin(step_batch.step, self._progress.tokens)
        plan = self._plan if due and self._plan is not None else None if online is None else online.capture_plan
        if plan is not None:
            self._observation.begin(step_batch, plan, val=due or (online is not None and online.reads_val))

    def observing(self) -> AbstractContextManager[None]:
        """Around forward and backward: keeps what is asked for if a snapshot is pending."""
        return self._observation.observing()

    def copy_gradients(self, objective: str) -> None:
        """Between backward and clipping: keeps gradients, and what they are of, if a snapshot is pending."""
        self._observation.copy_gradients(objective)

    def observing_update(self) -> AbstractContextManager[None]:
        """Around the update: keeps what it changed if a snapshot is pending."""
        return self._observation.observing_update()

    def finish(self, applied: bool) -> bool:
        """Seal the pending checkpoint, if there is one; whether one was. `applied`: whether the update was."""
        pending, self._pending = self._pending, None
        seen = self._observation.finish()
        if self._online is not None and self._measuring:
            self._online.measure(seen, applied)
        if pending is None:
            return False
        self._submit(pending if self._plan is None else replace(pending, seen=seen), applied)
        return True

    def save_between(self, step: int) -> None:
        """Seal weights and training state at a step that is not scheduled, so that the run can continue from it."""
        if step not in self._taken:
            self._submit(PendingCheckpoint(self._copy_model(), self._copy_state(step)), applied=False)

    def _copy_state(self, step: int) -> TrainingState:
        parts = self._parts
        method_state = parts.method.state(parts.model)
        return copy_state(
            step=step,
            tokens=self._progress.tokens,
            skipped=self._progress.skipped,
            method_tokens=self._progress.method_tokens,
            flops=self._progress.flops,
            method_flops=self._progress.method_flops,
            loss_scale=parts.loss_scale.value if parts.loss_scale.active else None,
            loss_scale_updates=parts.loss_scale.updates,
            optimizer=parts.optimizer,
            names=parts.parameter_names,
            method_state=method_state,
            generators=self._gather(copy_generators()),
            method_of_processes=self._gather(method_state.process_tensors),
        )

    def _gather(self, own: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The tensors of every process, as copies on the CPU."""
        fabric = self._parts.fabric
        gathered = {name: gather(fabric, tensor).to("cpu", copy=True) for name, tensor in own.items()}
        return [{name: tensors[rank] for name, tensors in gathered.items()} for rank in range(fabric.world_size)]

    def _copy_model(self) -> LanguageModel:
        return self._parts.method.plain_model(self._parts.model)

    def _submit(self, pending: PendingCheckpoint, applied: bool) -> None:
        step = pending.state.step
        self._taken.add(step)
        if self._parts.fabric.is_global_zero:
            if self._online is not None:
                self._online.flush()
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
            if pending.seen.train is not None:
                batch = SnapshotBatch(
                    loader.rows_of_step(state.step), loader.batch_of_step(state.step).numpy(), loader.fingerprint
                )
                self._write_snapshot(temporary, pending.seen.train, "train", state, batch, applied)
            if pending.seen.val is not None and self._val is not None:
                self._write_snapshot(temporary, pending.seen.val, "val", state, self._val.batch, False)
        self._progress.parent = manifest_hash(folder)
        self._progress.sealed.add(state.step)
        self._on_sealed(state.step)
        remove_old_training_states(self._parts.directory, self._parts.config.checkpointing.keep_training_states)

    def _write_model(self, checkpoint: CheckpointFolder, model: LanguageModel) -> None:
        save_model(model, checkpoint.path, tokenizer_file=self._tokenizer_file)
        if "pytorch" in self._parts.config.checkpointing.formats:
            checkpoint.native_weights.parent.mkdir()
            own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}  # tied ones once
            save_file(own, checkpoint.native_weights)

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
