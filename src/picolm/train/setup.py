"""Builds every object of a run, once, here. Everything that can be wrong is found before the run folder is touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.capture.plan import CapturePlan, plan_capture
from picolm.capture.writer import SnapshotBatch
from picolm.data.contract import TokenRows, TokenSource
from picolm.data.loader import BatchLoader, build_loader
from picolm.data.tokenizer import load_tokenizer
from picolm.hub.outbox import Destination
from picolm.model.contract import LanguageModel, build_model, flops_per_token
from picolm.model.precision import cpu_multiplies
from picolm.optim.contract import OPTIMIZERS, build_schedule, optimizer_options
from picolm.records.rundir import RunDirectory
from picolm.train import identity
from picolm.train.config import Precision, RunConfig
from picolm.train.evaluation import Evaluator, prepare_evaluator
from picolm.train.fork import Fork, check_fork
from picolm.train.inputs import all_problems, open_checked_data, open_val_rows
from picolm.train.loss_scale import LossScale
from picolm.train.methods.build import build_method
from picolm.train.methods.contract import COMPILED, SCALED_LOSS, SEVERAL_PROCESSES, TrainingMethod
from picolm.train.observation import ValBatch
from picolm.train.online import OnlineAnalysis, build_online
from picolm.train.publication import destination_of, refuse_secrets_in
from picolm.train.run import Parts

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
    member: identity.Membership | None = None
    """Its place in a study, if any."""


def build_training(
    config: RunConfig[Any], directory: RunDirectory, fork: Fork | None = None, member: identity.Membership | None = None
) -> Training:
    """All objects of the run. Everything that can be wrong with it is a PicoError here, before anything is written."""
    refuse_secrets_in(config)
    data, val_rows = all_problems(lambda: open_checked_data(config), lambda: open_val_rows(config))
    check_continuation(directory, config, data)
    check_fork(directory, config, fork)
    destination = destination_of(config)
    torch.use_deterministic_algorithms(config.training.deterministic)
    loader = loader_of(config, data)
    method = build_method(config, row_tokens=loader.row_length - 1, rows_of_step=loader.batch_of_step)
    loss_scale = loss_scale_of(config)
    parts = build_parts(config, directory, build_fabric(config, method, loss_scale), method, loss_scale, data)
    plan, val = build_capture(config, parts, val_rows)
    return Training(
        parts,
        data,
        plan,
        val,
        build_online(parts, val),
        prepare_evaluator(config, parts, data),
        destination,
        fork,
        member,
    )


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


def build_fabric(config: RunConfig[Any], method: TrainingMethod, loss_scale: LossScale) -> Fabric:
    """Fabric on the devices asked for, with all processes launched; PicoError if there are fewer devices."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision
    from lightning_fabric.strategies.ddp import DDPStrategy

    asked = config.training.fabric
    if asked.accelerator in ("cuda", "gpu") and not torch.cuda.is_available():
        raise PicoError(
            f"training.fabric.accelerator = {asked.accelerator}: this machine has no CUDA device",
            "--set training.fabric.accelerator=auto" + _smaller_fabric_hint(config),
        )
    on_cuda = _device_type(config) == "cuda"
    present = torch.cuda.device_count() if on_cuda else os.cpu_count() or 1
    if asked.num_devices > present or (asked.num_nodes > 1 and "RANK" not in os.environ and "SLURM_JOB_ID" not in os.environ):
        raise PicoError(
            f"training.fabric: {asked.num_nodes} machine(s) x {asked.num_devices} device(s) are asked for; "
            f"here is one with {present} {'GPU(s)' if on_cuda else 'CPU core(s)'}",
            "on one device:" + _smaller_fabric_hint(config) + "; several machines are started by Slurm or torchrun",
        )
    several = asked.num_devices * asked.num_nodes > 1
    try:
        fabric = Fabric(
            accelerator=asked.accelerator,
            devices=asked.num_devices,
            num_nodes=asked.num_nodes,
            precision=None if loss_scale.active else _effective_precision(config),
            plugins=[MixedPrecision("16-mixed", _device_type(config), loss_scale)] if loss_scale.active else [],  # type: ignore[arg-type]
            strategy=DDPStrategy(find_unused_parameters=not method.trains_all_parameters) if several else "auto",
        )
        if several:
            fabric.launch()
    except (ValueError, RuntimeError) as error:  # what the launcher (Slurm, torchrun) started is something else
        raise PicoError(
            f"training.fabric.num_nodes = {asked.num_nodes} and training.fabric.num_devices = {asked.num_devices} "
            f"do not fit the processes that were started: {str(error).splitlines()[0]}",
            "start num_nodes machines with num_devices tasks each (srun --nodes=.. --ntasks-per-node=..), or set both as started",
        ) from error
    check_supported(config, method, several=several, compiled=should_compile(config, fabric))
    return fabric


def check_supported(config: RunConfig[Any], method: TrainingMethod, *, several: bool, compiled: bool) -> None:
    """PicoError if the run would go in a way under which the method does not keep its promises."""
    asked = {
        SEVERAL_PROCESSES: (several, _smaller_fabric_hint(config)),
        COMPILED: (compiled, "--set training.compile=false"),
        SCALED_LOSS: (config.training.fabric.precision == "16-mixed", "--set training.fabric.precision=bf16-mixed, or 32-true"),
    }
    for way, (wanted, hint) in asked.items():
        if wanted and way not in method.supports:
            raise PicoError(f"training.method ({config.training.method.name}) does not support {way}", hint.strip())


def loss_scale_of(config: RunConfig[Any]) -> LossScale:
    """The factor of the loss: one that adapts with float16, 1 otherwise."""
    return LossScale(active=_effective_precision(config) == "16-mixed")


def _device_type(config: RunConfig[Any]) -> str:
    """`cuda`, `mps` or `cpu`, as Fabric will choose."""
    asked = config.training.fabric.accelerator
    if asked != "auto":
        return "cuda" if asked == "gpu" else asked
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _effective_precision(config: RunConfig[Any]) -> Precision:
    """The precision as asked, but float32 for 16 bits that the processor would only emulate.

    The model switches autocast off by itself there; a compiled backward pass would still be traced under it.
    """
    asked = config.training.fabric.precision
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(asked, torch.float32)
    return "32-true" if _device_type(config) == "cpu" and not cpu_multiplies(dtype) else asked


def _smaller_fabric_hint(config: RunConfig[Any]) -> str:
    asked = config.training.fabric
    wanted = {"num_nodes": asked.num_nodes, "num_devices": asked.num_devices}
    return "".join(f" --set training.fabric.{key}=1" for key, value in wanted.items() if value > 1)


def should_compile(config: RunConfig[Any], fabric: Fabric) -> bool:
    """Whether the training step is compiled: as asked, and with `auto` on CUDA."""
    asked = config.training.compile
    return fabric.device.type == "cuda" if asked == "auto" else asked


def build_parts(
    config: RunConfig[Any],
    directory: RunDirectory,
    fabric: Fabric,
    method: TrainingMethod,
    loss_scale: LossScale,
    data: TokenSource,
) -> Parts:
    """Model, optimiser, schedule and loader."""
    model = method.wrap_model(initial_model(config))
    compiled = should_compile(config, fabric)
    # Each shape is compiled as it is: with sizes left open, a method's kernels would depend on which of its passes came first.
    fabric_model = fabric.setup_module(cast(nn.Module, torch.compile(model, dynamic=False)) if compiled else model)
    whole_loader = loader_of(config, data)
    optimization = config.training.optimization
    shared = {"betas": optimization.betas, "eps": optimization.eps, "weight_decay": optimization.weight_decay}
    options = optimizer_options(optimization.optimizer, shared, lr=optimization.lr)
    optimizer = OPTIMIZERS.find(optimization.optimizer.name)(model.named_parameters(), **options)
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
        loss_scale=loss_scale,
        loader=loader_of(config, data, fabric.global_rank, fabric.world_size),
        whole_loader=whole_loader,
        plain_tensors=method.plain_tensors(model),
        effective_tensors=method.effective_tensors(model),
        trained=dict(model.named_parameters()),
        plain_flops=flops_per_token(config.model, whole_loader.row_length - 1),
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
