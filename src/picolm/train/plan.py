"""What a run will cost, before anything runs: parameters, operations, memory, disk and time, from the configuration alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picolm.capture.plan import plan_capture
from picolm.capture.recorder import MOMENTS
from picolm.data.contract import open_source
from picolm.model.contract import LanguageModel, find_architecture, flops_per_token
from picolm.optim.contract import OPTIMIZERS, optimizer_options
from picolm.train.config import RunConfig
from picolm.train.method_costs import MethodCosts, method_costs

ATTENTION_ROLES = ("query", "key", "value", "output")
FEED_FORWARD_ROLES = ("gate", "up", "down")
METHOD_PART = "method"
"""What the training method adds."""
BATCH_BYTES_PER_TOKEN = 8
"""A token of a recorded batch in parquet: its number and its text."""


@dataclass(frozen=True)
class CheckpointBytes:
    """Tensor bytes of one scheduled checkpoint, by part."""

    weights: int
    training_state: int
    learning_dynamics: int

    @property
    def model_state(self) -> int:
        """What the paper's Table 4 calls model state: everything but the learning dynamics."""
        return self.weights + self.training_state

    @property
    def total(self) -> int:
        return self.model_state + self.learning_dynamics


@dataclass(frozen=True)
class RunPlan:
    """The cost of a run."""

    parameters: dict[str, int]
    """Part of the model -> trainable values; their sum is all."""
    flops_per_token: dict[str, float]
    """blocks, head, attention: floating-point operations to train on one token."""
    memory: dict[str, int]
    """What a device holds -> bytes. Activations are estimated, the rest counted."""
    checkpoint_steps: list[int]
    checkpoint: CheckpointBytes
    disk_bytes: int
    """All checkpoints of the run, after retention."""
    tokens_per_step: int
    tokens: int
    """Predicted tokens that train the language model."""
    method_tokens: int
    """Tokens that the training method uses for another purpose."""
    flops: float
    """Floating-point operations of the whole run."""
    notes: list[str]
    """What could not be counted, and why."""

    def hours(self, tokens_per_second: float) -> float:
        """Hours of training at a given speed over all devices, without evaluation and checkpoints."""
        return (self.tokens + self.method_tokens) / tokens_per_second / 3600


def plan_run(config: RunConfig[Any]) -> RunPlan:
    """The cost of the run that `config` describes. Data that cannot be opened is replaced by full rows, with a note."""
    notes: list[str] = []
    row_tokens = _row_tokens(config, notes)
    costs = method_costs(config, row_tokens, shape_of(config), shape_of(config))
    batch = config.data.dataloader.batch_size
    checkpoint = checkpoint_bytes(config, costs, row_tokens, notes)
    steps = config.checkpoint_steps
    kept_states = min(len(steps), config.checkpointing.keep_training_states or len(steps))
    return RunPlan(
        parameters=parameters_by_part(costs.model, costs.own_parameters),
        flops_per_token=flops_by_part(config, costs, row_tokens),
        memory=memory_by_part(config, costs.model, row_tokens),
        checkpoint_steps=steps,
        checkpoint=checkpoint,
        disk_bytes=len(steps) * (checkpoint.weights + checkpoint.learning_dynamics) + kept_states * checkpoint.training_state,
        tokens_per_step=batch * row_tokens,
        tokens=round(costs.language_model_tokens),
        method_tokens=round(costs.method_tokens),
        flops=costs.flops,
        notes=notes,
    )


def parameters_by_part(model: LanguageModel, own: Collection[str] = ()) -> dict[str, int]:
    """Part -> values; a tied head counts with the embedding. `own`: names of those that the training method added."""
    layout = model.layout()
    parts = {"embedding": 0, "attention": 0, "feed-forward": 0, "norms and biases": 0, "head": 0}
    for name, parameter in model.named_parameters():
        place = layout.tensors.get(name.removesuffix(".weight"))
        part = METHOD_PART if name in own else _part_of_role("norm" if place is None else place.role)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


def _part_of_role(role: str) -> str:
    if role in ATTENTION_ROLES:
        return "attention"
    if role in FEED_FORWARD_ROLES:
        return "feed-forward"
    return {"embedding": "embedding", "unembedding": "head"}.get(role, "norms and biases")


def flops_by_part(config: RunConfig[Any], costs: MethodCosts, row_tokens: int) -> dict[str, float]:
    """6 N + 12 L d T of the PaLM convention, split into blocks, head and attention scores.

    The part of the method is what it adds to that, or saves, on average over the run's language-model tokens.
    """
    model, layout = costs.model, costs.model.layout()
    scores = 12.0 * len(layout.names_with_role("query")) * layout.query_heads * layout.head_width * row_tokens
    heads = set(layout.names_with_role("unembedding"))
    shapes = {
        name.removesuffix(".weight"): parameter.numel() for name, parameter in model.named_parameters(remove_duplicate=False)
    }
    head = 6.0 * sum(size for name, size in shapes.items() if name in heads)
    plain = flops_per_token(config.model, row_tokens)
    parts = {"blocks": plain - scores - head, "head": head, "attention": scores}
    added = costs.flops / costs.language_model_tokens - plain if costs.language_model_tokens else 0.0
    return parts if abs(added) < 1e-9 * plain else parts | {METHOD_PART: added}


def memory_by_part(config: RunConfig[Any], model: LanguageModel, row_tokens: int) -> dict[str, int]:
    """Bytes on each device. Activations: inputs and outputs of every matrix for one micro-batch, and the logits."""
    fabric, optimization = config.training.fabric, config.training.optimization
    master, width = element_bytes(fabric.precision)
    sequences = config.data.dataloader.batch_size // (
        fabric.num_devices * fabric.num_nodes * optimization.gradient_accumulation_steps
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    matrices = [parameter for name, parameter in model.named_parameters() if parameter.dim() == 2 and name.startswith("layers.")]
    per_token = width * sum(sum(matrix.shape) for matrix in matrices)
    return {
        "weights": count * master,
        "gradients": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) * master,
        "optimizer": optimizer_bytes(config, model),
        "low-precision weights": 0 if width == master else count * width,
        "activations (about)": sequences * row_tokens * per_token,
        "logits (about)": sequences * row_tokens * model.vocab_size * (width + 4),
    }


def element_bytes(precision: str) -> tuple[int, int]:
    """(bytes of a stored weight, bytes of a computed activation)."""
    return {"64-true": (8, 8), "32-true": (4, 4)}.get(precision, (4, 2))


def optimizer_bytes(config: RunConfig[Any], model: LanguageModel) -> int:
    """Bytes of the optimiser's state."""
    return sum(_state_bytes(*kept) for kept in _optimizer_states(config, model).values())


def _optimizer_states(config: RunConfig[Any], model: LanguageModel) -> dict[str, tuple[Mapping[str, Any], Tensor, Tensor]]:
    """Parameter -> the optimiser's state after a step on a small stand-in, the stand-in, the parameter."""
    optimization = config.training.optimization
    shared = {key: getattr(optimization, key) for key in ("betas", "eps", "weight_decay")}
    options = optimizer_options(optimization.optimizer, shared, lr=optimization.lr)
    dtype = torch.float64 if config.training.fabric.precision == "64-true" else torch.float32
    real = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    stand_ins = {name: nn.Parameter(torch.ones([min(2, n) for n in tensor.shape], dtype=dtype)) for name, tensor in real.items()}
    for stand_in in stand_ins.values():
        stand_in.grad = torch.ones_like(stand_in)
    optimizer = OPTIMIZERS.find(optimization.optimizer.name)(stand_ins.items(), **options)
    optimizer.step()
    return {name: (optimizer.state[stand_ins[name]], stand_ins[name], real[name]) for name in real}


def _state_bytes(state: Mapping[str, Any], stand_in: Tensor, real: Tensor) -> int:
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    return sum((real if tensor.shape == stand_in.shape else tensor).numel() * tensor.element_size() for tensor in tensors)


def checkpoint_bytes(config: RunConfig[Any], costs: MethodCosts, row_tokens: int, notes: list[str]) -> CheckpointBytes:
    """Tensor bytes of a scheduled checkpoint with its snapshots; of the larger one, if the run begins otherwise than it ends."""
    master, _ = element_bytes(config.training.fabric.precision)
    plain = shape_of(config)
    weights = master * sum(parameter.numel() for parameter in plain.parameters())
    copies = 2 if "pytorch" in config.checkpointing.formats else 1
    state = max(optimizer_bytes(config, costs.model), optimizer_bytes(config, costs.last) + master * costs.state_values)
    return CheckpointBytes(weights * copies, state, _dynamics_bytes(config, plain, row_tokens, notes))


def _dynamics_bytes(config: RunConfig[Any], model: LanguageModel, row_tokens: int, notes: list[str]) -> int:
    dynamics = config.checkpointing.learning_dynamics
    if not dynamics.enabled:
        return 0
    shapes = {name.removesuffix(".weight"): parameter.shape for name, parameter in model.named_parameters()}
    plan = plan_capture(
        dynamics,
        model=model,
        plain_names=list(shapes),
        tokens_per_sequence=row_tokens,
        seed=config.training.seeds.capture,
        layout=model.layout(),
    )
    master, width = element_bytes(config.training.fabric.precision)
    per_sequence = len(plan.positions) * width * sum(shapes[name][0] for name in plan.module_names)
    per_sequence += (row_tokens + 1) * BATCH_BYTES_PER_TOKEN
    matrices = master * sum(math.prod(shapes[name]) for name in plan.tensor_names)
    heads = model.layout().query_heads
    circuits = max(4, master) * heads * sum(shapes[each.output][0] * shapes[each.value][1] for each in plan.circuits)
    moments = _moment_bytes(config, model, plan.tensor_names) if plan.moments else 0
    val_sequences = _val_sequences(config, notes)
    train = 2 * matrices + circuits + moments + config.data.dataloader.batch_size * per_sequence
    return train + (0 if val_sequences is None else matrices + circuits + val_sequences * per_sequence)


def _moment_bytes(config: RunConfig[Any], model: LanguageModel, tensor_names: Collection[str]) -> int:
    """Bytes of the optimiser's moments of these tensors in a snapshot."""
    kept = {entry for entries in MOMENTS.values() for entry in entries}
    states = {name.removesuffix(".weight"): each for name, each in _optimizer_states(config, model).items()}
    chosen = [states[name] for name in tensor_names if name in states]
    return sum(
        _state_bytes({key: value for key, value in state.items() if key in kept}, stand_in, real)
        for state, stand_in, real in chosen
    )


def _val_sequences(config: RunConfig[Any], notes: list[str]) -> int | None:
    dynamics = config.checkpointing.learning_dynamics
    if dynamics.eval_data is None:
        return None
    if dynamics.eval_sequences is not None:
        return dynamics.eval_sequences
    rows = _rows(dynamics.eval_data, "val")
    if rows is None:
        notes.append(f"the val snapshots are counted without activations: {dynamics.eval_data} is not here")
        return 0
    return rows[0]


def _row_tokens(config: RunConfig[Any], notes: list[str]) -> int:
    name = config.data.dataset.name
    rows = _rows(name, "train")
    if rows is None:
        notes.append(f"rows are taken to be full ({config.model.max_seq_len} tokens): {name} is not here")
        return int(config.model.max_seq_len)
    return rows[1] - 1


def _rows(name: str, split: str) -> tuple[int, int] | None:
    """(rows, row length) of prepared data in a local folder, or None."""
    if not Path(name).is_dir():
        return None
    rows = open_source(name, {}).split(split)
    return rows.rows, rows.row_length


def storage_sentences(planned: RunPlan, runs: Path) -> list[str]:
    """Which checkpoints there will be and what they take; a note if the disk of `runs` has less."""
    each = planned.checkpoint.total
    listed = shortened(planned.checkpoint_steps)
    sentences = [f"checkpoints at steps {listed}: about {in_bytes(each)} each, {in_bytes(planned.disk_bytes)} in all"]
    existing = next(folder for folder in (runs, *runs.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < planned.disk_bytes:
        sentences.append(
            f"note: {in_bytes(free)} are free in {existing}; fewer checkpoints: checkpointing.steps, "
            "smaller ones: checkpointing.keep_training_states=1"
        )
    return sentences


def shortened(steps: list[int]) -> str:
    """All steps if they are few, else the first ten and the last two."""
    names = [f"{step:,}".replace(",", "_") if step >= 10_000 else str(step) for step in steps]
    return ", ".join(names if len(names) <= 16 else [*names[:10], "...", *names[-2:]])


def in_bytes(size: float) -> str:
    """A size in powers of 1024, as the paper's Table 4 counts."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit in ("B", "KiB") else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def shape_of(config: RunConfig[Any]) -> LanguageModel:
    """The model without storage."""
    with torch.device("meta"):
        return find_architecture(config.model.model_type).model_class(config.model)
