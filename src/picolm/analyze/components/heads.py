"""What circuits of attention heads share: which tensor of a layer, which key/value head, which norm before."""

from __future__ import annotations

from torch import Tensor

from picolm.analyze.components.contract import read
from picolm.base.errors import PicoError
from picolm.records.names import expand_patterns, join_name, split_name
from picolm.records.snapshot import Layout, Snapshot


def by_layer(layout: Layout, pattern: str, role: str, setting: str) -> dict[int, str]:
    """Layer -> plain name of its tensor with this role that fits the pattern."""
    names = expand_patterns([pattern], layout.names_with_role(role), setting)
    return {layer: name for name in names if (layer := split_name(name).layer) is not None}


def key_value_head(layout: Layout, head: int) -> int:
    """The key/value head that a query head shares."""
    return head * layout.key_value_heads // layout.query_heads


def gain_before_attention(snapshot: Snapshot, layer: int) -> Tensor:
    """(D,): gain of the norm through which attention reads the residual stream."""
    name = join_name(layer, "attention_norm")
    if name not in snapshot.layout.tensors:
        raise PicoError(f"fold_norm: {name} is not there", "this architecture has no norm before attention: leave fold_norm out")
    return read(snapshot, "weights", name).double()
