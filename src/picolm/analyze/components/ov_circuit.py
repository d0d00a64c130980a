"""The output-value circuit of each query head: what the head writes into the residual stream for what it attends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from picolm.analyze.components.contract import Piece, component, read
from picolm.analyze.matrix import Product
from picolm.base.config import Settings
from picolm.base.errors import Undefined
from picolm.records.names import expand_patterns, split_name
from picolm.records.snapshot import Layout, Snapshot


class CircuitLayers(Settings):
    """Which layers make the circuit."""

    value_layer: str = "attention.v_proj"
    """End of the plain name of the value projection."""

    output_layer: str = "attention.o_proj"
    """End of the plain name of the output projection."""


DEFAULT_LAYERS = CircuitLayers()


@component(
    "ov_circuit",
    data_types=("weights", "activations", "gradients", "first_order"),
    reads={
        "activations": ("weights", "activations"),
        "gradients": ("gradients",),
        "first_order": ("weights", "gradients"),
    },
)
def ov_circuit(snapshot: Snapshot, data_type: str, *, layer_suffixes: CircuitLayers = DEFAULT_LAYERS) -> Iterator[Piece]:
    """One matrix per query head h, with g its key/value head: W_Oʰ W_Vᵍ, (model width, model width), rank ≤ head width.

    weights: that product. activations: what the head would write if it attended only to the captured position,
    value activations times W_Oʰᵀ, (samples, model width). first_order: W_Oʰ dW_Vᵍ + dW_Oʰ W_Vᵍ with d the gradient: the
    direction in which a small gradient step moves the product (not the gradient of the product). gradients: the
    gradient with respect to the product. Source: Elhage et al. (2021); grouping as in grouped-query attention.
    """
    values = _by_layer(snapshot.layout, layer_suffixes.value_layer, "value")
    outputs = _by_layer(snapshot.layout, layer_suffixes.output_layer, "output")
    for layer in sorted(values.keys() & outputs.keys()):
        circuit = _makers(Blocks(snapshot, values[layer], outputs[layer]))[data_type]
        for head in range(snapshot.layout.query_heads):
            yield Piece("ov_circuit", partial(circuit, head), layer, head)


def _by_layer(layout: Layout, pattern: str, role: str) -> dict[int, str]:
    """Layer -> plain name of its tensor with this role that fits the pattern."""
    names = expand_patterns([pattern], layout.names_with_role(role), f"ov_circuit: layer_suffixes.{role}_layer")
    return {layer: name for name in names if (layer := split_name(name).layer) is not None}


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
        group = head * self._layout.key_value_heads // self._layout.query_heads
        start = group * self._layout.head_width
        dimension = 1 if data_type == "activations" else 0
        return stored.narrow(dimension, start, self._layout.head_width).double()

    def output(self, data_type: str, head: int) -> Tensor:
        """(D, K): columns of this query head."""
        stored = self._read(data_type, self._output_name)
        return stored.narrow(1, head * self._layout.head_width, self._layout.head_width).double()


def _makers(blocks: Blocks) -> dict[str, Callable[[int], Product]]:
    """Data type -> the circuit of a head."""
    return {
        "weights": lambda head: Product(blocks.output("weights", head), blocks.value("weights", head)),
        "activations": lambda head: Product(blocks.value("activations", head), blocks.output("weights", head).T),
        "gradients": _exact_gradient,
        "first_order": lambda head: first_order_motion(
            blocks.output("weights", head),
            blocks.value("weights", head),
            blocks.output("gradients", head),
            blocks.value("gradients", head),
        ),
    }


def _exact_gradient(head: int) -> Product:
    raise Undefined("the exact gradient of the circuit was not captured; `data_type: first_order` needs no more than gradients")


def first_order_motion(output_DK: Tensor, value_KD: Tensor, output_change_DK: Tensor, value_change_KD: Tensor) -> Product:
    """W_O dW_V + dW_O W_V as one product of twice the head width, its two halves scaled to the same size."""
    balance = torch.sqrt(_size(output_DK) * _size(value_change_KD) / (_size(output_change_DK) * _size(value_KD))).sqrt()
    left_DR = torch.cat([output_DK / balance, output_change_DK * balance], dim=1)
    right_RD = torch.cat([value_change_KD * balance, value_KD / balance])
    return Product(left_DR, right_RD)


def _size(tensor: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(tensor)
    return size.clamp(min=torch.finfo(torch.float64).tiny)
