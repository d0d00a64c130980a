"""The output-value circuit of each query head: what the head writes into the residual stream for what it attends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.components.heads import by_layer, gain_before_attention, key_value_head
from picolm.analyze.matrix import Product
from picolm.base.config import Settings
from picolm.base.errors import PicoError, Undefined
from picolm.records.names import join_name
from picolm.records.snapshot import Snapshot


class CircuitLayers(Settings):
    """Which layers make the circuit."""

    value_layer: str = "attention.v_proj"
    """End of the plain name of the value projection."""

    output_layer: str = "attention.o_proj"
    """End of the plain name of the output projection."""


DEFAULT_LAYERS = CircuitLayers()


@component(
    "ov_circuit",
    reads={
        "activations": ("weights", "activations"),
        "gradients": ("weights", "gradients", "ov_gradients"),
        "updates": ("weights", "updates"),
        "first_order": ("weights", "gradients"),
    },
)
def ov_circuit(
    snapshot: Snapshot,
    data_type: str,
    *,
    layer_suffixes: CircuitLayers = DEFAULT_LAYERS,
    fold_norm: bool = False,
    definition: Literal["residual", "pico"] = "residual",
) -> Iterator[Piece]:
    """One matrix per query head h, with g its key/value head: W_Oʰ W_Vᵍ, (model width, model width), rank ≤ head width.

    weights: that product; with `fold_norm` times the gain of the norm before attention, which the product reads through.
    activations: what the head would write if it attended only to the captured position, value activations times W_Oʰᵀ,
    (samples, model width). gradients: the gradient with respect to the product, where it was captured. first_order:
    W_Oʰ dW_Vᵍ + dW_Oʰ W_Vᵍ with d the gradient: how a small gradient step moves the product. updates: how the step that
    was taken moved it. `definition: pico` gives what the original computes: weights W_Vᵍ W_Oʰ, (head width, head width);
    gradients what is here called first_order. Source: Elhage et al. (2021), with heads grouped.
    """
    if fold_norm and (data_type != "weights" or definition == "pico"):
        raise PicoError("ov_circuit: fold_norm is defined for weights only", "remove fold_norm or take data_type: weights")
    for layer, blocks in head_blocks(snapshot, layer_suffixes):
        gain = partial(gain_before_attention, snapshot, layer) if fold_norm else None
        make = _pico_circuits(blocks) if definition == "pico" else _circuits(blocks, snapshot, layer, gain)
        if data_type not in make:
            raise PicoError(f"ov_circuit: definition pico has no {data_type}", f"allowed: {', '.join(make)}")
        beside = None if data_type in ("weights", "activations") else make["weights"]
        for head in range(snapshot.layout.query_heads):
            yield Piece(
                "ov_circuit",
                partial(make[data_type], head),
                layer,
                head,
                beside=None if beside is None else partial(beside, head),
            )


def head_blocks(snapshot: Snapshot, layers: CircuitLayers) -> Iterator[tuple[int, Blocks]]:
    """Each layer with the blocks of its heads."""
    values = by_layer(snapshot.layout, layers.value_layer, "value", "ov_circuit: layer_suffixes.value_layer")
    outputs = by_layer(snapshot.layout, layers.output_layer, "output", "ov_circuit: layer_suffixes.output_layer")
    for layer in sorted(values.keys() & outputs.keys()):
        yield layer, Blocks(snapshot, values[layer], outputs[layer])


class Blocks:
    """The parts of one layer's value and output projections that belong to a query head, in float64.

    Each stored tensor is read once, when first needed, and kept while the layer is worked on.
    """

    def __init__(self, snapshot: Snapshot, value_name: str, output_name: str) -> None:
        self._layout = snapshot.layout
        self._read = cache(lambda data_type, name: read(snapshot, data_type, name))
        self._value_name, self._output_name = value_name, output_name

    def value(self, data_type: str, head: int) -> Tensor:
        """(K, D): rows of the key/value head that this query head shares; of activations (S, K)."""
        stored = self._read(data_type, self._value_name)
        start = key_value_head(self._layout, head) * self._layout.head_width
        dimension = 1 if data_type == "activations" else 0
        return stored.narrow(dimension, start, self._layout.head_width).double()

    def output(self, data_type: str, head: int) -> Tensor:
        """(D, K): columns of this query head."""
        stored = self._read(data_type, self._output_name)
        return stored.narrow(1, head * self._layout.head_width, self._layout.head_width).double()


Circuit = Callable[[int], "Tensor | Product"]


def _circuits(blocks: Blocks, snapshot: Snapshot, layer: int, gain: Callable[[], Tensor] | None) -> dict[str, Circuit]:
    """Data type -> the circuit of a head, as it acts on the residual stream."""

    def weights(head: int) -> Product:
        value_KD = blocks.value("weights", head)
        return Product(blocks.output("weights", head), value_KD if gain is None else value_KD * gain())

    def exact_gradient(head: int) -> Tensor:
        name = join_name(layer, "ov_gradient")
        if name not in snapshot.tensors("ov_gradients"):
            raise Undefined(NOT_CAPTURED)
        return snapshot.tensors("ov_gradients")[name][head]

    def motion(head: int) -> Product:
        return first_order_motion(*blocks_and_changes(blocks, "gradients", head))

    def update(head: int) -> Product:
        output_DK, value_KD, output_change_DK, value_change_KD = blocks_and_changes(blocks, "updates", head)
        return first_order_motion(output_DK, value_KD + value_change_KD, output_change_DK, value_change_KD)

    return {
        "weights": weights,
        "activations": partial(_written, blocks),
        "gradients": exact_gradient,
        "first_order": motion,
        "updates": update,
    }


NOT_CAPTURED = (
    "the exact gradient of the circuit was not captured; `data_type: first_order` needs only the gradients of its weights"
)


def _pico_circuits(blocks: Blocks) -> dict[str, Circuit]:
    """What the original computes under these data types."""
    return {
        "weights": lambda head: blocks.value("weights", head) @ blocks.output("weights", head),
        "activations": partial(_written, blocks),
        "gradients": lambda head: first_order_motion(*blocks_and_changes(blocks, "gradients", head)),
    }


def _written(blocks: Blocks, head: int) -> Product:
    return Product(blocks.value("activations", head), blocks.output("weights", head).T)


def blocks_and_changes(blocks: Blocks, data_type: str, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and value block of a head, and their gradients or updates."""
    stored = blocks.output("weights", head), blocks.value("weights", head)
    return *stored, blocks.output(data_type, head), blocks.value(data_type, head)


def first_order_motion(output_DK: Tensor, value_KD: Tensor, output_change_DK: Tensor, value_change_KD: Tensor) -> Product:
    """W_O dW_V + dW_O W_V as one product of twice the head width, its two halves scaled to the same size.

    With W_V + dW_V for W_V it is the whole change of the product, (W_O + dW_O)(W_V + dW_V) - W_O W_V.
    """
    balance = torch.sqrt(_size(output_DK) * _size(value_change_KD) / (_size(output_change_DK) * _size(value_KD))).sqrt()
    left_DR = torch.cat([output_DK / balance, output_change_DK * balance], dim=1)
    right_RD = torch.cat([value_change_KD * balance, value_KD / balance])
    return Product(left_DR, right_RD)


def _size(tensor: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(tensor)
    return size.clamp(min=torch.finfo(torch.float64).tiny)
