"""Residual stream, feed-forward paths, the direct path, the optimiser's step: each against its definition."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from analysis_example import CAPTURED, layout

from picolm.analyze.components.contract import find_component
from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric_function
from picolm.base.errors import Undefined
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import Placement, Snapshot, TensorFile, open_snapshot


def pieces(component: str, data_type: str, snapshot: Snapshot, **options: Any) -> dict[tuple[str, int | None], Any]:
    found = find_component(component, data_type, options, "test").pieces(snapshot)
    return {(piece.part, piece.layer): piece for piece in found}


def tensor_file(tensors: dict[str, torch.Tensor]) -> TensorFile:
    return TensorFile({name: (lambda name=name: tensors[name]) for name in tensors}, "nothing here")


@pytest.fixture
def snapshot(run: RunDirectory) -> Snapshot:
    """All activations of a residual model whose stream is known."""
    generator = torch.Generator().manual_seed(1)
    opened = open_snapshot(run.checkpoint(0), 0, "train")
    names = ["embedding_proj"] + [f"layers.{layer}.{part}" for layer in (0, 1) for part in ("attention.o_proj", "swiglu.w_2")]
    activations = {name: torch.randn(6, 32, generator=generator) for name in names}
    for layer in (0, 1):
        for part in ("w_0", "w_1"):
            activations[f"layers.{layer}.swiglu.{part}"] = torch.randn(6, 48, generator=generator)
    return dataclasses.replace(opened, activations=tensor_file(activations))


def test_stream_is_the_embedding_plus_all_writes_before(snapshot: Snapshot) -> None:
    found = pieces("residual_stream", "activations", snapshot)
    written = [snapshot.activations[name].double() for name in ("embedding_proj", "layers.0.attention.o_proj")]
    assert torch.equal(Matrix(found["before_attention", 0].load).entries_MN, written[0])
    assert torch.equal(Matrix(found["before_swiglu", 0].load).entries_MN, written[0] + written[1])
    everything = sum(
        snapshot.activations[name].double() for name in snapshot.activations if "w_0" not in name and "w_1" not in name
    )
    torch.testing.assert_close(Matrix(found["final", None].load).entries_MN, everything)


def test_beside_a_write_stands_the_stream_it_enters(snapshot: Snapshot) -> None:
    writes, streams = (pieces(name, "activations", snapshot) for name in ("residual_write", "residual_stream"))
    for layer in (0, 1):
        for block in ("attention", "swiglu"):
            beside = Matrix(writes[block, layer].beside).entries_MN
            assert torch.equal(beside, Matrix(streams[f"before_{block}", layer].load).entries_MN)


def test_stream_without_captured_embedding_is_undefined(run: RunDirectory) -> None:
    opened = open_snapshot(run.checkpoint(0), 0, "train")
    with pytest.raises(Undefined, match="activations of embedding_proj were not captured"):
        pieces("residual_stream", "activations", opened)["final", None].load()


def test_stream_of_an_architecture_that_norms_its_writes_is_undefined(snapshot: Snapshot) -> None:
    tensors = {**snapshot.layout.tensors, "layers.0.attention_post_norm": Placement("norm", "norm")}
    normed = dataclasses.replace(snapshot, layout=dataclasses.replace(snapshot.layout, tensors=tensors))
    with pytest.raises(Undefined, match="straight into the stream"):
        pieces("residual_stream", "activations", normed)["final", None].load()


def test_hidden_units_are_gate_times_up(snapshot: Snapshot) -> None:
    hidden = Matrix(pieces("swiglu", "activations", snapshot)["hidden", 1].load).entries_MN
    gate, up = (snapshot.activations[f"layers.1.swiglu.{part}"].double() for part in ("w_0", "w_1"))
    torch.testing.assert_close(hidden, gate / (1 + torch.exp(-gate)) * up)


def test_neuron_gains_do_not_see_scale_moved_between_up_and_down(snapshot: Snapshot) -> None:
    weights = {name: snapshot.weights[name].double() for name in layout().tensors}
    moved = {
        **weights,
        "layers.0.swiglu.w_1": weights["layers.0.swiglu.w_1"] * 7,
        "layers.0.swiglu.w_2": weights["layers.0.swiglu.w_2"] / 7,
    }
    both = [
        Matrix(pieces("swiglu", "weights", dataclasses.replace(snapshot, weights=tensor_file(each)))["neuron_gains", 0].load)
        for each in (weights, moved)
    ]
    assert both[0].shape == (1, 48)
    torch.testing.assert_close(both[0].entries_MN, both[1].entries_MN)
    gate, up, down = (weights[f"layers.0.swiglu.{part}"] for part in ("w_0", "w_1", "w_2"))
    expected = [float(gate[unit].norm() * up[unit].norm() * down[:, unit].norm()) for unit in range(48)]
    assert both[0].entries_MN[0].tolist() == pytest.approx(expected)


def test_linear_path_is_down_times_up(snapshot: Snapshot) -> None:
    path = Matrix(pieces("swiglu", "weights", snapshot)["linear_path", 0].load).entries_MN
    torch.testing.assert_close(
        path, snapshot.weights["layers.0.swiglu.w_2"].double() @ snapshot.weights["layers.0.swiglu.w_1"].double()
    )


def test_direct_path_is_unembedding_times_embedding(snapshot: Snapshot) -> None:
    out, into, gain = (snapshot.weights[name].double() for name in ("de_embedding_proj", "embedding_proj", "output_norm"))
    (piece,) = pieces("embedding_unembedding", "weights", snapshot).values()
    torch.testing.assert_close(Matrix(piece.load).entries_MN, out @ into.T)
    (folded,) = pieces("embedding_unembedding", "weights", snapshot, fold_norm=True).values()
    torch.testing.assert_close(Matrix(folded.load).entries_MN, out @ torch.diag(gain) @ into.T)


def test_update_of_the_direct_path_is_after_minus_before(snapshot: Snapshot) -> None:
    changes = {name: torch.randn(64, 32) * 1e-3 for name in ("de_embedding_proj", "embedding_proj")}
    (piece,) = pieces("embedding_unembedding", "updates", dataclasses.replace(snapshot, updates=tensor_file(changes))).values()
    out, into = (snapshot.weights[name].double() for name in changes)
    out_after, into_after = (snapshot.weights[name].double() + changes[name].double() for name in changes)
    torch.testing.assert_close(Matrix(piece.load).entries_MN, out_after @ into_after.T - out @ into.T, rtol=1e-9, atol=1e-12)


def test_too_large_a_product_has_singular_values_but_no_entries(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picolm.analyze.matrix.LARGEST", 1000)
    (piece,) = pieces("embedding_unembedding", "weights", snapshot).values()
    assert Matrix(piece.load).singular_values_R.numel() == 64
    with pytest.raises(Undefined, match="too large to write out"):
        _ = Matrix(piece.load).entries_MN


def test_step_of_the_optimizer_is_compared_with_the_way_downhill(snapshot: Snapshot) -> None:
    gradient = {name: torch.randn(32, 32) for name in ("layers.0.attention.o_proj",)}
    update = {name: -0.01 * tensor for name, tensor in gradient.items()}
    stepped = dataclasses.replace(snapshot, gradients=tensor_file(gradient), updates=tensor_file(update))
    (piece,) = pieces("optimizer_step", "updates", stepped, layer_suffixes="attention.o_proj").values()
    assert metric_function("cosine")(piece.load(), piece.beside()) == pytest.approx(1.0)
    assert metric_function("relative_size")(piece.load(), piece.beside()) == pytest.approx(0.01)


def test_micro_batches_give_the_noise_scale_of_a_known_distribution(snapshot: Snapshot) -> None:
    generator = torch.Generator().manual_seed(5)
    true = torch.randn(32, 32, generator=generator, dtype=torch.float64)
    micro = true + 3.0 * torch.randn(4000, 32, 32, generator=generator, dtype=torch.float64)  # S per micro-batch: 9 x 1024
    name = "layers.0.attention.o_proj"
    info = {
        "batch_tokens": 4000 * 16,
        "micro_batch_squared_norms": {name: micro.square().sum(dim=(1, 2)).tolist()},
        "micro_batch_tokens": [16] * 4000,
    }
    measured = dataclasses.replace(snapshot, gradients=tensor_file({name: micro.mean(dim=0)}), info=info)
    found = pieces("micro_batches", "gradients", measured)
    for piece in (found["attention.o_proj", 0], found["all_recorded", None]):
        rows = piece.load()
        assert rows.shape == (4001, 2)
        assert metric_function("gradient_noise")(rows) == pytest.approx(16 * 9 * 1024, rel=0.01)
        assert metric_function("gradient_signal")(rows) == pytest.approx(float(true.square().sum()), rel=0.01)
        assert metric_function("gradient_noise_scale")(rows) == pytest.approx(
            16 * 9 * 1024 / float(true.square().sum()), rel=0.02
        )


def test_unrecorded_micro_batches_are_undefined(snapshot: Snapshot) -> None:
    (piece,) = pieces("micro_batches", "gradients", snapshot).values()
    with pytest.raises(Undefined, match="no gradient norms of micro-batches were recorded for split train"):
        piece.load()


def test_simple_puts_the_weight_beside_its_update(run: RunDirectory) -> None:
    opened = open_snapshot(run.checkpoint(0), 0, "train")
    for piece in find_component("simple", "updates", {}, "test").pieces(opened):
        assert piece.part in CAPTURED and piece.beside is not None
        assert torch.equal(piece.beside(), opened.weights[f"layers.{piece.layer}.{piece.part}"])
