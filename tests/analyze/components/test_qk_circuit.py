"""The query-key circuit reproduces attention scores under rotary positions, whole and by band."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from picolm.analyze.components.contract import Component, find_component
from picolm.analyze.matrix import Matrix
from picolm.base.errors import PicoError, Undefined
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import Snapshot, TensorFile, open_snapshot

BASE, HEADS, GROUPS, WIDTH = 10_000.0, 4, 2, 8


def circuit(data_type: str = "weights", **options: Any) -> Component:
    return find_component("qk_circuit", data_type, options, "test")


@pytest.fixture
def snapshot(run: RunDirectory) -> Snapshot:
    (run.checkpoint(0) / "config.json").write_text(json.dumps({"rope_theta": BASE}))
    return open_snapshot(run.checkpoint(0), 0, "train")


def scores_as_attention_computes_them(query: torch.Tensor, key: torch.Tensor, at: int, seen: int) -> float:
    """Rotate query and key by their own positions, with complex numbers, and take the inner product."""
    angle = BASE ** (-torch.arange(0, WIDTH, 2, dtype=torch.float64) / WIDTH)
    turned = [
        torch.view_as_complex(vector.reshape(-1, 2).contiguous()) * torch.polar(torch.ones_like(angle), position * angle)
        for vector, position in ((query, at), (key, seen))
    ]
    return float((turned[0].conj() * turned[1]).sum().real)


@pytest.mark.parametrize("offset", [0, -1, -17])
def test_circuit_gives_the_score_of_attention(snapshot: Snapshot, offset: int) -> None:
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    query, key = (snapshot.weights[f"layers.1.attention.{part}"].double() for part in ("q_proj", "k_proj"))
    for piece in circuit(offset=offset).pieces(snapshot)[HEADS:]:
        assert piece.layer == 1 and piece.head is not None
        group = piece.head * GROUPS // HEADS
        q = query[piece.head * WIDTH : (piece.head + 1) * WIDTH] @ x[0]
        k = key[group * WIDTH : (group + 1) * WIDTH] @ x[1]
        expected = scores_as_attention_computes_them(q, k, at=40, seen=40 + offset)
        assert float(x[0] @ Matrix(piece.load).entries_MN @ x[1]) == pytest.approx(expected, rel=1e-10)


def test_bands_add_up_to_the_circuit_at_any_offset(snapshot: Snapshot) -> None:
    whole = {piece.label: Matrix(piece.load).entries_MN for piece in circuit(offset=-5).pieces(snapshot)}
    bands = {piece.label: Matrix(piece.load) for piece in circuit(bands=True).pieces(snapshot)}
    assert {matrix.rank for matrix in bands.values()} == {2}
    for _, layer, head in whole:
        total = torch.zeros(32, 32, dtype=torch.float64)
        for band in range(WIDTH // 2):
            angle = -5 * BASE ** (-2 * band / WIDTH)
            total += math.cos(angle) * bands[f"band_{band}.cos", layer, head].entries_MN
            total += math.sin(angle) * bands[f"band_{band}.sin", layer, head].entries_MN
        torch.testing.assert_close(total, whole["qk_circuit", layer, head])


def test_update_that_was_not_captured_is_undefined(snapshot: Snapshot) -> None:
    missing = circuit("updates").pieces(snapshot)[0]
    with pytest.raises(Undefined, match=r"updates of layers.0.attention.q_proj were not captured"):
        missing.load()


def test_changes_of_the_circuit_are_its_derivative_and_its_difference(snapshot: Snapshot) -> None:
    names = [f"layers.0.attention.{part}" for part in ("q_proj", "k_proj")]
    generator = torch.Generator().manual_seed(3)
    change = {name: torch.randn(snapshot.weights[name].shape, generator=generator).double() for name in names}

    def circuits(data_type: str, amount: float, **options: Any) -> list[torch.Tensor]:
        moved = {name: snapshot.weights[name].double() + amount * change[name] for name in names}
        changed = dataclasses.replace(snapshot, weights=file(moved), gradients=file(change), updates=file(change))
        return [Matrix(piece.load).entries_MN for piece in circuit(data_type, **options).pieces(changed) if piece.layer == 0]

    for options in ({"offset": -3}, {"bands": True}):
        before, after = circuits("weights", 0.0, **options), circuits("weights", 1.0, **options)
        ahead, behind = circuits("weights", 1e-5, **options), circuits("weights", -1e-5, **options)
        motions, updates = circuits("first_order", 0.0, **options), circuits("updates", 0.0, **options)
        for index in range(len(before)):
            torch.testing.assert_close(updates[index], after[index] - before[index])
            torch.testing.assert_close(motions[index], (ahead[index] - behind[index]) / 2e-5, rtol=1e-6, atol=1e-7)


def file(tensors: dict[str, torch.Tensor]) -> TensorFile:
    return TensorFile({name: (lambda name=name: tensors[name]) for name in tensors}, "")


def test_unknown_rotary_base_is_undefined_except_at_offset_zero(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "train")
    with pytest.raises(Undefined, match="does not say the base of the rotary angles"):
        circuit(offset=-1).pieces(snapshot)[0].load()
    assert Matrix(circuit().pieces(snapshot)[0].load).shape == (32, 32)


def test_bands_of_an_offset_are_refused(snapshot: Snapshot) -> None:
    with pytest.raises(PicoError, match="bands hold for every offset"):
        circuit(offset=-1, bands=True).pieces(snapshot)
