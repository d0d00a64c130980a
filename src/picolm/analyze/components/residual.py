"""The residual stream: what is in it at each depth, and what attention and feed-forward layers write into it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.base.errors import Undefined
from picolm.records.names import join_name, split_name
from picolm.records.snapshot import Snapshot

WRITES = {"output": "attention", "down": "swiglu"}
"""Role of the tensor that writes -> name of the block, in the order in which a layer's blocks write."""


@component("residual_stream", data_types=("activations",))
def residual_stream(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """The stream before each block and after the last: the embedding plus every write before, (samples, model width).

    Parts `before_attention`, `before_swiglu` and `final`. Needs the captured outputs of the embedding and of every
    output and down projection (`layer_suffixes: [embedding_proj, attention.o_proj, swiglu.w_2]` when training), and blocks
    that write one after the other with norms only before them; else undefined.
    """
    for layer, block, _, before in _writes(snapshot):
        yield Piece(f"before_{block}", partial(_stream, snapshot, before), layer)
    everything = [name for _, _, name, _ in _writes(snapshot)]
    yield Piece("final", partial(_stream, snapshot, everything))


@component("residual_write", data_types=("activations",))
def residual_write(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """What each attention and feed-forward block adds to the stream, (samples, model width); beside it stands the stream.

    With `relative_size` it is how large a write is against the stream it enters; with `{cosine: {compare_with: beside}}`
    whether it strengthens or cancels what is there.
    """
    for layer, block, name, before in _writes(snapshot):
        yield Piece(block, partial(_write, snapshot, name), layer, beside=partial(_stream, snapshot, before))


def _writes(snapshot: Snapshot) -> list[tuple[int, str, str, list[str]]]:
    """(layer, block, name, names of the writes before) of every write, in the order in which they happen."""
    order = list(WRITES)
    found = []
    for role, block in WRITES.items():
        for name in snapshot.layout.names_with_role(role):
            layer = split_name(name).layer
            if layer is not None:
                found.append((layer, order.index(role), block, name))
    found.sort()
    names = [name for *_, name in found]
    return [(layer, block, name, names[:position]) for position, (layer, _, block, name) in enumerate(found)]


def _write(snapshot: Snapshot, name: str) -> Tensor:
    """What a module added to the stream, where its output goes there as it is."""
    layer = split_name(name).layer
    before = [join_name(layer, part) for part in ("attention_norm", "swiglu_norm")]
    after = [join_name(layer, part) for part in ("attention_post_norm", "swiglu_post_norm")]
    known = snapshot.layout.tensors
    if layer is not None and (any(norm in known for norm in after) or not all(norm in known for norm in before)):
        raise Undefined("blocks of this architecture do not write one after the other, straight into the stream")
    return read(snapshot, "activations", name).double()


def _stream(snapshot: Snapshot, before: list[str]) -> Tensor:
    names = snapshot.layout.names_with_role("embedding")
    if not names:
        raise Undefined("the layout names no embedding")
    total_SD = _write(snapshot, names[0])
    for name in before:
        total_SD = total_SD + _write(snapshot, name)
    return total_SD
