"""What the optimiser received and what it made of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.components.simple import PAPER_LAYERS, named_patterns
from picolm.base.errors import Undefined
from picolm.records.names import expand_patterns, split_name
from picolm.records.snapshot import Snapshot


@component(
    "optimizer_step",
    data_types=("updates",),
    reads={"updates": ("updates", "gradients", "momentum", "second_moment")},
    selects=("layer_suffixes",),
)
def optimizer_step(
    snapshot: Snapshot,
    data_type: str,
    *,
    of: Literal["update", "momentum", "second_moment"] = "update",
    layer_suffixes: tuple[str, ...] | str = PAPER_LAYERS,
) -> Iterator[Piece]:
    """The update that was applied, or a moment of the optimiser where captured; beside it stands minus the gradient.

    With `{cosine: {compare_with: beside}}`: how far the step still points downhill. With `relative_size`: how long a step
    the optimiser makes of a gradient of this size.
    """
    stored = "updates" if of == "update" else of
    patterns = named_patterns(layer_suffixes, snapshot.layout)
    known = snapshot.tensors(stored) or snapshot.layout.tensors
    for name in expand_patterns(patterns, known, "optimizer_step: layer_suffixes"):
        layer, part = split_name(name)
        yield Piece(part, partial(read, snapshot, stored, name), layer, beside=partial(_downhill, snapshot, name))


def _downhill(snapshot: Snapshot, name: str) -> Tensor:
    return -read(snapshot, "gradients", name)


@component("micro_batches", data_types=("gradients",))
def micro_batches(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Squared gradient norms for `gradient_noise_scale`: one row (tokens, squared norm) per micro-batch, the batch last.

    One matrix per tensor whose norms were recorded, and one, `all_recorded`, for them together.
    """
    recorded: dict[str, list[float]] = snapshot.info.get("micro_batch_squared_norms") or {}
    for name in recorded:
        layer, part = split_name(name)
        yield Piece(part, partial(_norms, snapshot, [name]), layer)
    yield Piece("all_recorded", partial(_norms, snapshot, list(recorded)))


def _norms(snapshot: Snapshot, names: list[str]) -> Tensor:
    """Rows (tokens, squared norm of the mean gradient); (micro-batches + 1, 2)."""
    recorded = snapshot.info.get("micro_batch_squared_norms") or {}
    if not names:
        raise Undefined(f"no gradient norms of micro-batches were recorded for split {snapshot.split}")
    squared_S = torch.tensor([recorded[name] for name in names], dtype=torch.float64).sum(dim=0)
    batch_tokens = float(snapshot.info["batch_tokens"])
    equal_parts = [batch_tokens / squared_S.numel()] * squared_S.numel()
    tokens_S = torch.tensor(snapshot.info.get("micro_batch_tokens") or equal_parts, dtype=torch.float64)
    whole = sum(float(read(snapshot, "gradients", name).double().square().sum()) for name in names)
    rows_S2 = torch.stack([tokens_S, squared_S], dim=1)
    return torch.cat([rows_S2, torch.tensor([[batch_tokens, whole]], dtype=torch.float64)])
