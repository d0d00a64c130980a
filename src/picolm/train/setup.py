"""Builds every object of a run, once, here. Everything that can be wrong is found before the run folder is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.base.registry import checked_options
from picolm.capture.plan import CapturePlan, plan_capture
from picolm.capture.writer import SnapshotBatch
from picolm.data.contract import TokenRows, TokenSource, open_source
from picolm.data.loader import BatchLoader, build_loader
from picolm.data.sources import open_data
from picolm.data.tokenizer import load_tokenizer
from picolm.hub.outbox import Destination
from picolm.model.contract import LanguageModel, build_model, load_weights
from picolm.optim.contract import OPTIMIZERS, build_schedule, optimizer_options
from picolm.records import trainlog
from picolm.records.manifest import manifest_hash, verify
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.train import identity
from picolm.train.checkpoint import Checkpointer
from picolm.train.config import RunConfig
from picolm.train.evaluation import Evaluator, prepare_evaluator
from picolm.train.fork import Fork, check_fork
from picolm.train.methods.contract import METHODS, TrainingMethod
from picolm.train.observation import ValBatch
from picolm.train.online import OnlineAnalysis, build_online
from picolm.train.plan import plan_run, storage_sentences
from picolm.train.publication import destination_of
from picolm.train.retention import remove_leftovers
from picolm.train.run import Parts, Progress
from picolm.train.state import TrainingState, read_state, restore_generators, restore_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Training:
    """A run that has been checked: all its objects, fresh, and nothing written yet."""

    parts: Parts
    data: TokenSource
    plan: CapturePlan | None
    val: ValBatch | None
    online: OnlineAnalysis | None
    evaluator: Evaluator
    destination: Destination | None
    """Where its checkpoints are published, if anywhere."""
    fork: Fork | None = None
    """The checkpoint of another run that it begins from, if any."""


def build_training(config: RunConfig[Any], directory: RunDirectory, fork: Fork | None = None) -> Training:
    """All objects of the run. Everything that can be wrong with it is a PicoError here, before anything is written."""
    data, val_rows = all_problems(lambda: open_checked_data(config), lambda: open_val_rows(config))
    check_continuation(directory, config, data)
    check_fork(directory, config, fork)
    destination = destination_of(config)
    torch.use_deterministic_algorithms(config.training.deterministic)
    parts = build_parts(config, directory, build_fabric(config), build_method(config), data)
    plan, val = build_capture(config, parts, val_rows)
    return Training(parts, data, plan, val, build_online(parts, val), prepare_evaluator(config, parts, data), destination, fork)


def begin_or_continue(
    training: Training, may_write: Callable[[], None], on_sealed: Callable[[int], None], say: Callable[[str], None]
) -> tuple[Progress, Checkpointer]:
    """Create the run folder, or put its newest checkpoint into the objects. Only the holder of the run's lock may call this.

    `may_write` is asked before each checkpoint is sealed; it raises if the run has passed to another process. `on_sealed` is
    told of each sealed step, in the writer's thread.
    """
    parts, directory = training.parts, training.parts.directory
    first = parts.fabric.is_global_zero
    if first:
        remove_leftovers(directory)
    progress = Progress(sealed=set(parts.fabric.broadcast(directory.steps())))
    if progress.sealed:
        processes = restore(parts, progress, directory.checkpoint(max(progress.sealed)))
        say(f"continuing {directory.path} from step {progress.step}")
        for note in [*identity.environment_notes(directory), *unsaved_notes(directory, progress.step)]:
            say(note)
        if processes != parts.fabric.world_size:
            say(
                f"note: {processes} process(es) before, {parts.fabric.world_size} now: the same rows in the same order, "
                "but sums are rounded differently, so the run is no longer bit-exact"
            )
        if first:
            trainlog.cut_after(directory.log_file, progress.step)
            identity.record_continuation(directory, parts.config, progress.step)
    else:
        seed_dropout(parts)
        if training.fork is not None:
            begin_from_fork(parts, progress, training.fork, say)
        if first:
            facts = identity.new_identity(
                parts.config,
                data=describe_data(training.data),
                parameters=count(parts.model),
                forked_from=None if training.fork is None else training.fork.facts(),
            )
            identity.begin(directory, parts.config, facts)
            trainlog.cut_after(directory.log_file, 0)
            for sentence in storage_sentences(plan_run(parts.config), directory.path.parent):
                say(sentence)
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


def open_checked_data(config: RunConfig[Any]) -> TokenSource:
    """The tokens to train on, checked against tokenizer and model."""
    data = open_data(config.data)
    _check_tokenizer(config, data)
    row_length = data.split("train").row_length
    if row_length - 1 > config.model.max_seq_len:
        raise PicoError(
            f"model.max_seq_len = {config.model.max_seq_len}, but a row of {data.name} predicts {row_length - 1} tokens",
            f"--set model.max_seq_len={row_length - 1}, or prepare the data with shorter rows",
        )
    return data


def open_val_rows(config: RunConfig[Any]) -> TokenRows | None:
    """The rows of the fixed val batch, if snapshots have one."""
    dynamics = config.checkpointing.learning_dynamics
    if not dynamics.enabled or dynamics.eval_data is None:
        return None
    setting = "checkpointing.learning_dynamics.eval_data"
    try:
        rows = open_source(dynamics.eval_data, {}).split("val")
    except PicoError as error:
        hint = f"name prepared data with a val split, or do without val snapshots: --set {setting}=null"
        reason = error.message.removeprefix(f"data.dataset.name = {dynamics.eval_data!r}: ")
        raise PicoError(f"{setting} = {dynamics.eval_data!r}: {reason}", hint) from error
    if rows.row_length - 1 > config.model.max_seq_len:
        raise PicoError(
            f"{setting}: a row predicts {rows.row_length - 1} tokens, model.max_seq_len is {config.model.max_seq_len}"
        )
    return rows


def all_problems(*attempts: Callable[[], Any]) -> list[Any]:
    """The results of all attempts; one PicoError with every problem if some of them fail."""
    results, errors = [], []
    for attempt in attempts:
        try:
            results.append(attempt())
        except PicoError as error:
            errors.append(error)
    if errors:
        raise PicoError(
            "\n".join(error.message for error in errors), "\n      ".join(error.hint for error in errors if error.hint)
        )
    return results


def _check_tokenizer(config: RunConfig[Any], data: TokenSource) -> None:
    tokenizer_name, default = config.data.tokenizer.name, type(config.data.tokenizer)().name
    carried = load_tokenizer(data.tokenizer_file) if data.tokenizer_file is not None else None
    if tokenizer_name != default and carried is not None and load_tokenizer(Path(tokenizer_name)).sha256 != carried.sha256:
        raise PicoError(
            f"data.tokenizer.name = {tokenizer_name!r} is not the tokenizer that {data.name} was prepared with",
            "leave data.tokenizer.name out: prepared data carries its tokenizer",
        )
    if carried is not None and carried.vocab_size > config.model.vocab_size:
        raise PicoError(
            f"model.vocab_size = {config.model.vocab_size}, but {data.name} has {carried.vocab_size} tokens",
            f"--set model.vocab_size={carried.vocab_size}",
        )


def describe_data(data: TokenSource) -> dict[str, Any]:
    """What `run.json` says about the data."""
    rows = data.split("train")
    return {
        "name": Path(data.name).name,
        "fingerprint": data.fingerprint,
        "rows": rows.rows,
        "row_length": rows.row_length,
        "entropy_floor_nats_per_token": data.manifest.get("entropy_floor_nats_per_token"),
        "tokenizer_sha256": None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file).sha256,
    }


def check_continuation(directory: RunDirectory, config: RunConfig[Any], data: TokenSource) -> None:
    """PicoError if the run exists and may not continue; sets the number of threads it began with."""
    if not directory.identity_file.is_file():
        return
    if not config.checkpointing.training.auto_resume:
        raise PicoError(
            f"the run {directory.path} exists and checkpointing.training.auto_resume is false",
            "--set checkpointing.training.auto_resume=true to continue it, or choose another checkpointing.run_name",
        )
    identity.check_same_run(directory, config, data.fingerprint)
    torch.set_num_threads(directory.identity()["environment"]["threads"])


def build_fabric(config: RunConfig[Any]) -> Fabric:
    """Fabric on the devices asked for, with all processes launched; PicoError if there are fewer devices."""
    from lightning_fabric import Fabric

    asked = config.training.fabric
    if asked.accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise PicoError(
            f"training.fabric.accelerator = {asked.accelerator}: this machine has no CUDA device",
            "--set training.fabric.accelerator=auto" + _smaller_fabric_hint(config),
        )
    on_cuda = asked.accelerator in ("cuda", "gpu") or (asked.accelerator == "auto" and torch.cuda.is_available())
    present = torch.cuda.device_count() if on_cuda else os.cpu_count() or 1
    if asked.num_devices > present or (asked.num_nodes > 1 and "RANK" not in os.environ and "SLURM_JOB_ID" not in os.environ):
        raise PicoError(
            f"training.fabric: {asked.num_nodes} machine(s) x {asked.num_devices} device(s) are asked for; "
            f"here is one with {present} {'GPU(s)' if on_cuda else 'CPU core(s)'}",
            "on one device:" + _smaller_fabric_hint(config) + "; several machines are started by Slurm or torchrun",
        )
    several = asked.num_devices * asked.num_nodes > 1
    fabric = Fabric(
        accelerator=asked.accelerator,
        devices=asked.num_devices,
        num_nodes=asked.num_nodes,
        precision=asked.precision,
        strategy="ddp" if several else "auto",
    )
    if several:
        fabric.launch()
    return fabric


def _smaller_fabric_hint(config: RunConfig[Any]) -> str:
    asked = config.training.fabric
    wanted = {"num_nodes": asked.num_nodes, "num_devices": asked.num_devices}
    return "".join(f" --set training.fabric.{key}=1" for key, value in wanted.items() if value > 1)


def should_compile(config: RunConfig[Any], fabric: Fabric) -> bool:
    """Whether the training step is compiled: as asked, and with `auto` on CUDA."""
    asked = config.training.compile
    return fabric.device.type == "cuda" if asked == "auto" else asked


def build_method(config: RunConfig[Any]) -> TrainingMethod:
    """The training method, with its options checked."""
    named = config.training.method
    kind = METHODS.find(named.name)
    method: TrainingMethod = kind(**checked_options(kind, named.options, f"training.method ({named.name})"))
    return method


def build_parts(
    config: RunConfig[Any], directory: RunDirectory, fabric: Fabric, method: TrainingMethod, data: TokenSource
) -> Parts:
    """Model, optimiser, schedule and loader."""
    model = method.wrap_model(initial_model(config))
    compiled = should_compile(config, fabric)
    fabric_model = fabric.setup_module(cast(nn.Module, torch.compile(model)) if compiled else model)
    optimization = config.training.optimization
    shared = {"betas": optimization.betas, "eps": optimization.eps, "weight_decay": optimization.weight_decay}
    options = optimizer_options(optimization.optimizer, shared, lr=optimization.lr)
    optimizer = OPTIMIZERS.find(optimization.optimizer.name)(model.named_parameters(), **options)
    whole_loader = loader_of(config, data)
    schedule = build_schedule(
        optimization.lr_scheduler,
        max_steps=config.training.max_steps,
        warmup_steps=optimization.lr_warmup_steps,
        tokens_per_step=whole_loader.batch_sequences * (whole_loader.row_length - 1),
    )
    tokenizer = None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file)
    return Parts(
        config=config,
        directory=directory,
        fabric=fabric,
        model=model,
        fabric_model=fabric_model,
        optimizer=cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer)),
        schedule=method.wrap_schedule(schedule),
        method=method,
        loader=loader_of(config, data, fabric.global_rank, fabric.world_size),
        whole_loader=whole_loader,
        plain_tensors=method.plain_tensors(model),
        parameter_names={id(parameter): name for name, parameter in model.named_parameters()},
        decode=None if tokenizer is None else tokenizer.decode,
        compiled=compiled,
    )


def loader_of(config: RunConfig[Any], data: TokenSource, rank: int = 0, world: int = 1) -> BatchLoader:
    """The rows of one process out of `world`, in the declared order."""
    pin_memory = torch.cuda.is_available()
    return build_loader(config.data, data, seed=config.training.seeds.data, rank=rank, world=world, pin_memory=pin_memory)


def initial_model(config: RunConfig[Any]) -> LanguageModel:
    """The model at step 0: drawn from `training.seeds.init`, or the weights in `model.init_from`."""
    return build_model(config.model, torch.Generator().manual_seed(config.training.seeds.init))


def build_capture(config: RunConfig[Any], parts: Parts, val_rows: TokenRows | None) -> tuple[CapturePlan | None, ValBatch | None]:
    """What snapshots hold, and the fixed val batch."""
    dynamics = config.checkpointing.learning_dynamics
    if not dynamics.enabled:
        return None, None
    tokens_per_sequence = parts.loader.row_length - 1
    plan = plan_capture(
        dynamics,
        model=parts.model,
        plain_names=list(parts.plain_tensors),
        tokens_per_sequence=tokens_per_sequence,
        seed=config.training.seeds.capture,
        layout=parts.model.layout(),
    )
    return plan, _val_batch(config, val_rows)


def _val_batch(config: RunConfig[Any], rows: TokenRows | None) -> ValBatch | None:
    if rows is None:
        return None
    dynamics = config.checkpointing.learning_dynamics
    numbers = numpy.arange(min(dynamics.eval_sequences or rows.rows, rows.rows))
    return ValBatch(SnapshotBatch(numbers, rows.read(numbers), rows.fingerprint), dynamics.batch_size)


def restore(parts: Parts, progress: Progress, folder: Path) -> int:
    """Verify a checkpoint and put it into fresh objects; the number of processes that wrote it.

    A changed file is a PicoError naming it.
    """
    verify(folder)
    state: TrainingState = read_state(CheckpointFolder(folder).training_state)
    load_weights(parts.model, folder)
    restore_optimizer(parts.optimizer, parts.parameter_names, state)
    seed_dropout(parts)
    if len(state.generators) == parts.fabric.world_size:
        restore_generators(state.generators[parts.fabric.global_rank])
    parts.method.restore(state.method)
    progress.step, progress.tokens, progress.skipped = state.step, state.tokens, state.skipped
    progress.parent = manifest_hash(folder)
    return len(state.generators)


def begin_from_fork(parts: Parts, progress: Progress, fork: Fork, say: Callable[[str], None]) -> None:
    """Put a checkpoint of another run into fresh objects, as far as the two runs have the same sort of objects."""
    verify(fork.folder)
    before, now = identity.read_config(fork.run).training, parts.config.training
    state = read_state(CheckpointFolder(fork.folder).training_state)
    load_weights(parts.model, fork.folder)
    if before.optimization.optimizer.name == now.optimization.optimizer.name:
        restore_optimizer(parts.optimizer, parts.parameter_names, state, with_groups=False)
    else:
        say(f"note: {before.optimization.optimizer.name} before, {now.optimization.optimizer.name} now: its state begins empty")
    if before.method.name == now.method.name:
        parts.method.restore(state.method)
    if len(state.generators) == parts.fabric.world_size and before.seeds.dropout == now.seeds.dropout:
        restore_generators(state.generators[parts.fabric.global_rank])
    progress.step, progress.tokens = state.step, state.tokens
    say(f"beginning {parts.directory.path} from {fork.run.path} at step {fork.step}")


def unsaved_notes(directory: RunDirectory, step: int) -> list[str]:
    """One sentence if the log knows updates after the newest checkpoint: the process ended without notice."""
    rows = trainlog.read_rows(directory.log_file)
    lost = max((row["step"] for row in rows), default=0) - step
    return [f"note: {lost} update(s) after it were not saved before the process ended; they are made again"] if lost > 0 else []


def seed_dropout(parts: Parts) -> None:
    """Start the global generators, which dropout draws from; another stream in each process."""
    torch.manual_seed(parts.config.training.seeds.dropout + parts.fabric.global_rank)


def count(model: LanguageModel) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())
