"""The direct path from a token to the next: embedding, then unembedding, with no block between."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.components.ov_circuit import first_order_motion
from picolm.analyze.matrix import Product
from picolm.base.errors import PicoError
from picolm.records.snapshot import Snapshot


@component(
    "embedding_unembedding",
    data_types=("weights", "updates", "first_order"),
    reads={"updates": ("weights", "updates"), "first_order": ("weights", "gradients")},
)
def embedding_unembedding(snapshot: Snapshot, data_type: str, *, fold_norm: bool = False) -> Iterator[Piece]:
    """W_U W_Eᵀ, (vocabulary, vocabulary), rank ≤ model width: bigram-like statistics read off without attention.

    With `fold_norm`, the gain of the last norm stands between the two. Of a large vocabulary only metrics of singular
    values are defined. Source: Elhage et al. (2021).
    """
    layout = snapshot.layout
    embeddings, unembeddings = layout.names_with_role("embedding"), layout.names_with_role("unembedding")
    if not embeddings:
        raise PicoError("embedding_unembedding: the layout names no embedding")
    names = (unembeddings or embeddings)[0], embeddings[0]
    if fold_norm and data_type != "weights":
        raise PicoError("embedding_unembedding: fold_norm is defined for weights only", "remove fold_norm")
    yield Piece("embedding_unembedding", partial(_path, snapshot, data_type, *names, fold_norm))


def _path(snapshot: Snapshot, data_type: str, unembedding: str, embedding: str, fold_norm: bool) -> Product:
    out_VD, in_VD = (read(snapshot, "weights", name).double() for name in (unembedding, embedding))
    if data_type == "weights":
        return Product(out_VD * read(snapshot, "weights", "output_norm").double() if fold_norm else out_VD, in_VD.T)
    changes = "updates" if data_type == "updates" else "gradients"
    out_change_VD, in_change_VD = (read(snapshot, changes, name).double() for name in (unembedding, embedding))
    if data_type == "updates":
        in_VD = in_VD + in_change_VD
    return first_order_motion(out_VD, in_VD.T, out_change_VD, in_change_VD.T)
