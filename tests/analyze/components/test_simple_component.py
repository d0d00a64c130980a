"""The component `simple`: one matrix per stored tensor."""

from __future__ import annotations

import pytest
import torch

from picolm.analyze.components.contract import find_component
from picolm.analyze.matrix import Matrix
from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot


def test_one_piece_per_layer_in_natural_order(run: RunDirectory) -> None:
    simple = find_component("simple", "weights", {"layer_suffixes": "swiglu.w_2"}, "test")
    pieces = simple.pieces(open_snapshot(run.checkpoint(0), 0, "val"))
    assert [piece.label for piece in pieces] == [("swiglu.w_2", 0, None), ("swiglu.w_2", 1, None)]


def test_queries_come_in_plain_order(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "val")
    (piece, _) = find_component("simple", "weights", {"layer_suffixes": ["attention.q_proj"]}, "test").pieces(snapshot)
    assert torch.equal(Matrix(piece.load).entries_MN, snapshot.weights["layers.0.attention.q_proj"].double())


def test_vector_is_a_matrix_of_one_row(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "val")
    (piece,) = find_component("simple", "weights", {"layer_suffixes": "output_norm"}, "test").pieces(snapshot)
    assert (piece.layer, Matrix(piece.load).shape) == (None, (1, 32))


def test_pattern_that_fits_nothing_is_an_error(run: RunDirectory) -> None:
    simple = find_component("simple", "weights", {"layer_suffixes": "swiglu.w_9"}, "test")
    with pytest.raises(PicoError, match=r"`swiglu.w_9` matches no layer") as caught:
        simple.pieces(open_snapshot(run.checkpoint(0), 0, "val"))
    assert "swiglu.w_" in caught.value.hint
