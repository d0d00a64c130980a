"""One stored tensor at a time: the weight, the activations, the gradient or the update of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from picolm.analyze.components.contract import Piece, absent, component, read
from picolm.records.names import expand_patterns, split_name
from picolm.records.snapshot import Snapshot, TensorFile

PAPER_LAYERS = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")


@component("simple", data_types=("weights", "activations", "gradients", "updates"), selects=("layer_suffixes",))
def simple(snapshot: Snapshot, data_type: str, *, layer_suffixes: tuple[str, ...] | str = PAPER_LAYERS) -> Iterator[Piece]:
    """One matrix per stored tensor whose plain name ends in one of `layer_suffixes`, or fits it as a glob.

    A weight, gradient or update is (outputs, inputs); activations are (samples, width). A vector is one row. Beside a
    gradient or update stands the weight.
    """
    patterns = (layer_suffixes,) if isinstance(layer_suffixes, str) else layer_suffixes
    tensors = snapshot.tensors(data_type)
    for name in expand_patterns(patterns, tensors or snapshot.layout.tensors, _setting(tensors, data_type)):
        layer, part = split_name(name)
        load = partial(tensors.__getitem__, name) if tensors else absent(tensors.reason)
        changes = data_type in ("gradients", "updates")
        yield Piece(part, load, layer, beside=partial(read, snapshot, "weights", name) if changes else None)


def _setting(tensors: TensorFile, data_type: str) -> str:
    return f"layer_suffixes ({data_type})" if tensors else "layer_suffixes"
