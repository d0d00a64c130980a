"""The circuit is the product that acts on the residual stream, one per query head, also when heads share values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from picolm.analyze.components.contract import Component, find_component
from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric_function
from picolm.base.errors import PicoError, Undefined
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.snapshot import Layout, Placement, Snapshot, TensorFile, open_snapshot


def circuit(data_type: str, **options: Any) -> Component:
    return find_component("ov_circuit", data_type, options, "test")


@pytest.fixture
def oracle(test_data: Path) -> dict[str, Any]:
    expected = json.loads((test_data / "oracles" / "metrics" / "expected.json").read_text())["ov_circuit"]
    return {**expected, **load_file(test_data / "oracles" / "metrics" / "tensors.safetensors")}


@pytest.fixture
def oracle_snapshot(oracle: dict[str, Any]) -> Snapshot:
    names = {"v": "layers.0.attention.v_proj", "o": "layers.0.attention.o_proj"}
    layout = Layout(
        "pico_decoder",
        oracle["n_heads"],
        oracle["n_kv_heads"],
        oracle["head_dim"],
        {names["v"]: Placement("v", "value"), names["o"]: Placement("o", "output")},
    )

    def file(kind: str, *parts: str) -> TensorFile:
        return TensorFile({names[part]: lambda part=part: oracle[f"ov.{part}_proj.{kind}"] for part in parts}, "not there")

    return Snapshot(
        step=0,
        split="train",
        layout=layout,
        weights=file("weight", "v", "o"),
        activations=file("activation", "v"),
        gradients=file("gradient", "v", "o"),
        updates=TensorFile({}, "no update"),
        info={},
        folder=CheckpointFolder(Path("nowhere")),
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("data_type", "truth"), [("weights", "weights"), ("activations", "activations"), ("first_order", "gradients")]
)
def test_circuits_meet_the_oracle(data_type: str, truth: str, oracle: dict[str, Any], oracle_snapshot: Snapshot) -> None:
    pieces = circuit(data_type).pieces(oracle_snapshot)
    assert [piece.head for piece in pieces] == list(range(oracle["n_heads"]))
    for piece, expected_MN in zip(pieces, oracle[f"ov.expected.{truth}"], strict=True):
        torch.testing.assert_close(Matrix(piece.load).entries_MN, expected_MN, rtol=1e-12, atol=1e-13)


@pytest.mark.data
def test_values_of_circuits_meet_the_oracle(oracle: dict[str, Any], oracle_snapshot: Snapshot) -> None:
    of_weights = [Matrix(piece.load) for piece in circuit("weights").pieces(oracle_snapshot)]
    of_motion = [Matrix(piece.load) for piece in circuit("first_order").pieces(oracle_snapshot)]
    of_activations = [Matrix(piece.load) for piece in circuit("activations").pieces(oracle_snapshot)]
    for head in oracle["heads"]:
        matrix = of_weights[head["head"]]
        tensor = matrix.entries_MN
        assert metric_function("norm")(tensor, norm_type="nuclear") == pytest.approx(head["nuclear_output_times_value"], rel=1e-9)
        assert metric_function("per")(tensor) == pytest.approx(head["per_output_times_value_over_d_model"], rel=1e-9)
        kept_R = matrix.singular_values_R[: head["rank"]]
        assert float(kept_R[0] / kept_R[-1]) == pytest.approx(head["condition_number_nonzero_part"], rel=1e-9)
        assert matrix.singular_values_R[head["rank"] :].eq(0).all()
        motion, written = of_motion[head["head"]].entries_MN, of_activations[head["head"]].entries_MN
        assert float(motion.norm()) == pytest.approx(head["frobenius_gradient"], rel=1e-9)
        assert float(written.norm()) == pytest.approx(head["frobenius_activation"], rel=1e-9)


def test_singular_values_from_factors_equal_those_of_the_product(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "train")
    for data_type in ("weights", "first_order", "activations"):
        for piece in circuit(data_type).pieces(snapshot):
            matrix = Matrix(piece.load)
            dense_R = torch.linalg.svdvals(matrix.entries_MN)
            torch.testing.assert_close(matrix.singular_values_R, dense_R, rtol=1e-10, atol=1e-10 * float(dense_R[0]))


def test_first_order_motion_is_the_derivative_of_the_product(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "train")
    pieces = circuit("first_order").pieces(snapshot)
    value, output = snapshot.weights["layers.1.attention.v_proj"].double(), snapshot.weights["layers.1.attention.o_proj"].double()
    value_change = snapshot.gradients["layers.1.attention.v_proj"].double()
    output_change = snapshot.gradients["layers.1.attention.o_proj"].double()

    def product(head: int, amount: float) -> torch.Tensor:
        group = head // 2
        rows, columns = slice(group * 8, group * 8 + 8), slice(head * 8, head * 8 + 8)
        return (output + amount * output_change)[:, columns] @ (value + amount * value_change)[rows]

    for head in range(4):
        (piece,) = [each for each in pieces if (each.layer, each.head) == (1, head)]
        slope = (product(head, 1e-4) - product(head, -1e-4)) / 2e-4
        torch.testing.assert_close(Matrix(piece.load).entries_MN, slope, rtol=1e-7, atol=1e-9)


def test_gradient_of_the_circuit_is_undefined_unless_it_was_captured(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "train")
    piece = circuit("gradients").pieces(snapshot)[0]
    with pytest.raises(Undefined, match="exact gradient of the circuit was not captured"):
        _ = Matrix(piece.load).entries_MN
    captured = torch.arange(4 * 32 * 32, dtype=torch.float32).reshape(4, 32, 32)
    with_it = replace(snapshot, optional={"ov_gradients": TensorFile({"layers.1.ov_gradient": lambda: captured}, "")})
    found = {piece.label: piece for piece in circuit("gradients").pieces(with_it)}
    assert torch.equal(Matrix(found["ov_circuit", 1, 2].load).entries_MN, captured[2].double())
    with pytest.raises(Undefined, match="was not captured"):
        found["ov_circuit", 0, 0].load()


def test_update_of_the_circuit_is_the_product_after_minus_the_product_before(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "train")
    names = [f"layers.0.attention.{part}" for part in ("o_proj", "v_proj")]
    output, value = (snapshot.weights[name].double() for name in names)
    output_after, value_after = (snapshot.weights[name].double() + snapshot.updates[name].double() for name in names)
    for piece in circuit("updates").pieces(snapshot)[:4]:
        assert piece.head is not None and piece.beside is not None
        rows, columns = slice(piece.head // 2 * 8, piece.head // 2 * 8 + 8), slice(piece.head * 8, piece.head * 8 + 8)
        before = output[:, columns] @ value[rows]
        expected = output_after[:, columns] @ value_after[rows] - before
        torch.testing.assert_close(Matrix(piece.load).entries_MN, expected, rtol=1e-8, atol=1e-13)
        torch.testing.assert_close(Matrix(piece.beside).entries_MN, before)


def test_folded_circuit_is_the_circuit_of_the_normalised_stream(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "val")
    gain = snapshot.weights["layers.0.attention_norm"].double()
    plain, folded = circuit("weights").pieces(snapshot)[3], circuit("weights", fold_norm=True).pieces(snapshot)[3]
    torch.testing.assert_close(Matrix(folded.load).entries_MN, Matrix(plain.load).entries_MN @ torch.diag(gain))
    with pytest.raises(PicoError, match="fold_norm is defined for weights only"):
        circuit("activations", fold_norm=True).pieces(snapshot)


@pytest.mark.data
def test_definition_pico_gives_what_the_original_computes(oracle: dict[str, Any], oracle_snapshot: Snapshot) -> None:
    for data_type, truth in (
        ("weights", "weights_value_times_output"),
        ("activations", "activations"),
        ("gradients", "gradients"),
    ):
        pieces = circuit(data_type, definition="pico").pieces(oracle_snapshot)
        for piece, expected in zip(pieces, oracle[f"ov.expected.{truth}"], strict=True):
            torch.testing.assert_close(Matrix(piece.load).entries_MN, expected, rtol=1e-12, atol=1e-13)
    for piece, head in zip(circuit("weights", definition="pico").pieces(oracle_snapshot), oracle["heads"], strict=True):
        matrix = Matrix(piece.load).entries_MN
        nuclear, condition = metric_function("norm")(matrix, norm_type="nuclear"), metric_function("condition_number")(matrix)
        assert nuclear == pytest.approx(head["nuclear_value_times_output_reference_convention"], rel=1e-9)
        assert condition == pytest.approx(head["condition_number_reference_convention"], rel=1e-9)


def test_layer_that_is_not_a_value_projection_is_an_error(run: RunDirectory) -> None:
    with pytest.raises(PicoError, match=r"value_layer: `attention.q_proj` matches no layer"):
        circuit("weights", layer_suffixes={"value_layer": "attention.q_proj"}).pieces(open_snapshot(run.checkpoint(0), 0, "val"))


def test_missing_weights_give_a_reason(run: RunDirectory) -> None:
    snapshot = open_snapshot(run.checkpoint(0), 0, "val")
    without = replace(snapshot, gradients=TensorFile({}, "gradients of split val were not captured at this step"))
    with pytest.raises(Undefined, match="not captured at this step"):
        circuit("first_order").pieces(without)[0].load()
