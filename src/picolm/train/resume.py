"""Begins a run or continues it: a checked training comes in, its progress and its checkpointer leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from picolm.base.config import identity_hash
from picolm.base.errors import PicoError
from picolm.model.contract import load_weights
from picolm.records import trainlog
from picolm.records.manifest import manifest_hash, verify
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.train import identity
from picolm.train.checkpoint import Checkpointer
from picolm.train.fork import Fork
from picolm.train.inputs import describe_data
from picolm.train.plan import plan_run, storage_sentences
from picolm.train.retention import remove_leftovers
from picolm.train.run import Parts, Progress
from picolm.train.setup import Training
from picolm.train.state import TrainingState, read_state, restore_generators, restore_optimizer


def begin_or_continue(
    training: Training, may_write: Callable[[], None], on_sealed: Callable[[int], None], say: Callable[[str], None]
) -> tuple[Progress, Checkpointer]:
    """Create the run folder, or put its newest checkpoint into the objects. Only the holder of the run's lock may call this.

    `may_write` is asked before each checkpoint is sealed; it raises if the run has passed to another process. `on_sealed` is
    told of each sealed step, in the writer's thread.
    """
    parts, directory = training.parts, training.parts.directory
    if parts.fabric.is_global_zero:
        remove_leftovers(directory)
    progress = Progress(sealed=set(parts.fabric.broadcast(directory.steps())))
    if progress.sealed:
        _continue(parts, progress, say)
    else:
        _begin(training, progress, say)
    checkpointer = Checkpointer(
        parts,
        progress,
        plan=training.plan,
        val=training.val,
        online=training.online,
        evaluator=training.evaluator,
        tokenizer_file=training.data.tokenizer_file,
        may_write=may_write,
        on_sealed=on_sealed,
    )
    return progress, checkpointer


def _continue(parts: Parts, progress: Progress, say: Callable[[str], None]) -> None:
    directory = parts.directory
    processes = restore(parts, progress, directory.checkpoint(max(progress.sealed)))
    say(f"continuing {directory.path} from step {progress.step}")
    for note in [*identity.environment_notes(directory), *unsaved_notes(directory, progress.step)]:
        say(note)
    if processes != parts.fabric.world_size:
        say(
            f"note: {processes} process(es) before, {parts.fabric.world_size} now: the same rows in the same order, "
            "but sums are rounded differently, so the run is no longer bit-exact"
        )
    if parts.fabric.is_global_zero:
        trainlog.cut_after(directory.log_file, progress.step)
        identity.record_continuation(directory, parts.config, progress.step)


def _begin(training: Training, progress: Progress, say: Callable[[str], None]) -> None:
    parts, directory = training.parts, training.parts.directory
    seed_dropout(parts)
    if training.fork is not None:
        begin_from_fork(parts, progress, training.fork, say)
    parts.method.start(progress.step, parts.model, parts.optimizer)
    if not parts.fabric.is_global_zero:
        return
    facts = identity.new_identity(
        parts.config,
        data=describe_data(training.data),
        parameters=sum(tensor.numel() for tensor in parts.plain_tensors.values()),
        forked_from=None if training.fork is None else training.fork.facts(),
        member=training.member,
    )
    identity.begin(directory, parts.config, facts)
    trainlog.cut_after(directory.log_file, 0)
    for sentence in storage_sentences(plan_run(parts.config), directory.path.parent):
        say(sentence)


def restore(parts: Parts, progress: Progress, folder: Path) -> int:
    """Verify a checkpoint and put it into fresh objects; the number of processes that wrote it.

    A changed file is a PicoError naming it.
    """
    sealed = verify(folder)
    if sealed.config_hash not in (identity_hash(parts.config), parts.directory.identity()["config_hash"]):
        raise PicoError(
            f"{folder} belongs to another run: it was made with another configuration",
            "restore the checkpoint that was there, or delete this one to continue from the one before it",
        )
    state: TrainingState = read_state(CheckpointFolder(folder).training_state)
    load_weights(parts.model, folder)
    restore_optimizer(parts.optimizer, parts.parameter_names, state)
    seed_dropout(parts)
    if len(state.generators) == parts.fabric.world_size:
        restore_generators(state.generators[parts.fabric.global_rank])
    parts.method.restore(state.method_state(parts.fabric.global_rank, parts.fabric.world_size), parts.model)
    parts.method.start(state.step, parts.model, parts.optimizer)
    parts.loss_scale.restore(state.loss_scale, state.loss_scale_updates)
    _take_counts(progress, state)
    progress.skipped = state.skipped
    progress.parent = manifest_hash(folder)
    return len(state.generators)


def begin_from_fork(parts: Parts, progress: Progress, fork: Fork, say: Callable[[str], None]) -> None:
    """Put a checkpoint of another run into fresh objects, as far as the two runs have the same sort of objects."""
    verify(fork.folder)
    before, now = identity.read_config(fork.run).training, parts.config.training
    state = read_state(CheckpointFolder(fork.folder).training_state)
    load_weights(parts.model, fork.folder)
    if before.optimization.optimizer.name == now.optimization.optimizer.name:
        restore_optimizer(parts.optimizer, parts.parameter_names, state, forking=True)
    else:
        say(f"note: {before.optimization.optimizer.name} before, {now.optimization.optimizer.name} now: its state begins empty")
    parts.loss_scale.restore(state.loss_scale, state.loss_scale_updates)
    if before.method.name == now.method.name:
        parts.method.restore(state.method_state(parts.fabric.global_rank, parts.fabric.world_size), parts.model)
    if len(state.generators) == parts.fabric.world_size and before.seeds.dropout == now.seeds.dropout:
        restore_generators(state.generators[parts.fabric.global_rank])
    _take_counts(progress, state)
    say(f"beginning {parts.directory.path} from {fork.run.path} at step {fork.step}")


def _take_counts(progress: Progress, state: TrainingState) -> None:
    progress.step, progress.tokens, progress.flops = state.step, state.tokens, state.flops
    progress.method_tokens, progress.method_flops = state.method_tokens, state.method_flops


def unsaved_notes(directory: RunDirectory, step: int) -> list[str]:
    """One sentence if the log knows updates after the newest checkpoint: the process ended without notice."""
    rows = trainlog.read_rows(directory.log_file)
    lost = max((row["step"] for row in rows), default=0) - step
    return [f"note: {lost} update(s) after it were not saved before the process ended; they are made again"] if lost > 0 else []


def seed_dropout(parts: Parts) -> None:
    """Start the global generators, which dropout draws from; another stream in each process."""
    torch.manual_seed(parts.config.training.seeds.dropout + parts.fabric.global_rank)
