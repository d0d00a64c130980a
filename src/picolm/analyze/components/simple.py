"""One stored tensor at a time: the weight, the activations, the gradient or the update of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from picolm.analyze.components.contract import Piece, absent, component, read
from picolm.records.names import expand_patterns, split_name
from picolm.records.snapshot import Layout, Snapshot, TensorFile

PAPER_LAYERS = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")


PAPER_ROLES = ("value", "output", "down")
"""What those layers do: their counterparts in other architectures have other names."""


@component("simple", data_types=("weights", "activations", "gradients", "updates"), selects=("layer_suffixes",))
def simple(snapshot: Snapshot, data_type: str, *, layer_suffixes: tuple[str, ...] | str = PAPER_LAYERS) -> Iterator[Piece]:
    """One matrix per stored tensor whose plain name ends in one of `layer_suffixes`, or fits it as a glob.

    The default means value, output and down projections, whatever an architecture calls them. A weight, gradient or update
    is (outputs, inputs); activations are (samples, width). A vector is one row. Beside a gradient or update stands the
    weight.
    """
    patterns = named_patterns(layer_suffixes, snapshot.layout)
    tensors = snapshot.tensors(data_type)
    for name in expand_patterns(patterns, tensors or snapshot.layout.tensors, _setting(tensors, data_type)):
        layer, part = split_name(name)
        load = partial(tensors.__getitem__, name) if tensors else absent(tensors.reason)
        changes = data_type in ("gradients", "updates")
        beside = partial(read, snapshot, "weights", name) if changes else None
        yield Piece(part, load, layer, beside=beside, note=_rank_note(snapshot, data_type, name))


def _rank_note(snapshot: Snapshot, data_type: str, name: str) -> str:
    """Says so where training could not have given an update full rank."""
    limits = snapshot.info.get("update_ranks", {}) if data_type == "updates" else {}
    return f"rank at most {limits[name]} by construction" if name in limits else ""


def named_patterns(layer_suffixes: tuple[str, ...] | str, layout: Layout) -> tuple[str, ...]:
    """The patterns given; for the default, the names of the layers that do the same in this architecture."""
    patterns = (layer_suffixes,) if isinstance(layer_suffixes, str) else layer_suffixes
    if patterns != PAPER_LAYERS:
        return patterns
    parts = {split_name(name).part for role in PAPER_ROLES for name in layout.names_with_role(role)}
    return tuple(sorted(parts)) or patterns


def _setting(tensors: TensorFile, data_type: str) -> str:
    return f"layer_suffixes ({data_type})" if tensors else "layer_suffixes"
