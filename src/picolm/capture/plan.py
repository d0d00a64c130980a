"""What a snapshot holds: which layers, which token positions. Arrives from the configuration, goes to the recorder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import PositiveInt
from torch import nn

from picolm.base.config import OPERATIONAL, Settings
from picolm.base.errors import PicoError
from picolm.capture.circuits import Circuit, circuits_of
from picolm.records.names import expand_patterns, natural_order
from picolm.records.snapshot import Layout


class SampledPositions(Settings):
    """A random choice of token positions, the same for every snapshot of a run."""

    sample: PositiveInt
    """Number of positions drawn without replacement from `training.seeds.capture`."""


class LearningDynamicsConfig(Settings):
    """`checkpointing.learning_dynamics`: the snapshot taken with each scheduled checkpoint."""

    enabled: Annotated[bool, OPERATIONAL] = True
    """Whether checkpoints carry snapshots of activations, gradients and updates. The training itself is the same either way."""

    layer_suffixes: tuple[str, ...] = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")
    """Ends of plain parameter names, or globs over them. One that matches nothing is an error."""

    sequence_idx: int = -1
    """The token position whose activations are kept, counted from the end if negative. Short form of `positions: [n]`."""

    positions: Literal["all"] | SampledPositions | tuple[int, ...] | None = None
    """Token positions whose activations are kept: a list, `all`, or `{sample: n}`. Null: the one in `sequence_idx`."""

    batch_size: Annotated[PositiveInt, OPERATIONAL] = 8
    """Sequences per forward and backward pass over the val batch. Has no effect on what is recorded."""

    eval_data: str | None = "pico-lm/pretokenized-paloma-tinsy"
    """Prepared data whose `val` split is the fixed val batch: a folder, or a Hub name. Null: no val snapshots."""

    eval_sequences: PositiveInt | None = None
    """Number of sequences in the val batch, taken from the start of its split. Null: all of them."""

    ov_gradients: Annotated[bool, OPERATIONAL] = False
    """Whether the exact gradient of every output-value circuit is kept: query heads x width x width values per layer. Costs about
    one more training step of time per snapshot."""

    moments: Annotated[bool, OPERATIONAL] = False
    """Whether the optimiser's two moments are kept, as they made the update, under the names of the gradients."""

    micro_batch_norms: Annotated[bool, OPERATIONAL] = False
    """Whether the squared gradient norm of each micro-batch is kept, for the gradient noise scale; it needs several of them."""


@dataclass(frozen=True)
class CapturePlan:
    """The resolved choice: plain names whose gradients and updates are kept, modules whose outputs are, and positions."""

    tensor_names: tuple[str, ...]
    module_names: tuple[str, ...]
    positions: tuple[int, ...]
    circuits: tuple[Circuit, ...] = ()
    """Layers whose output-value circuits get an exact gradient."""
    moments: bool = False
    micro_batch_norms: bool = False


def plan_capture(
    config: LearningDynamicsConfig,
    *,
    model: nn.Module,
    plain_names: list[str],
    tokens_per_sequence: int,
    seed: int,
    layout: Layout | None = None,
) -> CapturePlan:
    """Resolve layers and positions against a model; PicoError for a layer or position that does not exist."""
    setting = "checkpointing.learning_dynamics.layer_suffixes"
    tensor_names = expand_patterns(config.layer_suffixes, plain_names, setting)
    modules = {name for name, _ in model.named_modules()}
    module_names = sorted((name for name in tensor_names if name in modules), key=natural_order)
    circuits = circuits_of(layout) if config.ov_gradients and layout is not None else ()
    return CapturePlan(
        tuple(tensor_names),
        tuple(module_names),
        resolve_positions(config, tokens_per_sequence, seed),
        circuits,
        config.moments,
        config.micro_batch_norms,
    )


def resolve_positions(config: LearningDynamicsConfig, tokens_per_sequence: int, seed: int) -> tuple[int, ...]:
    """The chosen token positions as ascending non-negative numbers."""
    chosen = config.positions
    if chosen == "all":
        return tuple(range(tokens_per_sequence))
    if isinstance(chosen, SampledPositions):
        return _sample(chosen.sample, tokens_per_sequence, seed)
    wanted = (config.sequence_idx,) if chosen is None else chosen
    setting = "sequence_idx" if chosen is None else "positions"
    return tuple(sorted({_inside(position, tokens_per_sequence, setting) for position in wanted}))


def _sample(count: int, tokens_per_sequence: int, seed: int) -> tuple[int, ...]:
    if count > tokens_per_sequence:
        raise PicoError(
            f"checkpointing.learning_dynamics.positions: sample = {count}, but a sequence has {tokens_per_sequence} tokens",
            "write `all` for every position",
        )
    drawn = torch.randperm(tokens_per_sequence, generator=torch.Generator().manual_seed(seed))[:count]
    return tuple(sorted(drawn.tolist()))


def _inside(position: int, tokens_per_sequence: int, setting: str) -> int:
    if not -tokens_per_sequence <= position < tokens_per_sequence:
        raise PicoError(
            f"checkpointing.learning_dynamics.{setting}: {position} is outside a sequence of {tokens_per_sequence} tokens",
            f"allowed: {-tokens_per_sequence} to {tokens_per_sequence - 1}",
        )
    return position % tokens_per_sequence
