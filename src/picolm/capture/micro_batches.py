"""How large the gradient of each micro-batch is: what the gradient noise scale is estimated from.

The gradient of a pass is seen on its way into the parameter, before it is added to that of the passes before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def squared_norms_of_passes(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, list[Tensor]]]:
    """Name -> squared norm of the gradient of every backward pass inside the block, as scalars on the device."""
    norms: dict[str, list[Tensor]] = {}
    handles, nodes = [], []
    for name, tensor in tensors.items():
        if not (tensor.requires_grad and tensor.is_leaf):
            continue
        norms[name] = []
        node = _accumulator(tensor)
        nodes.append(node)  # torch forgets a node that nobody holds, and our hook with it
        handles.append(node.register_prehook(_measure_into(norms[name])))
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


def _accumulator(parameter: Tensor) -> Any:
    """The node of the graph that adds gradients into `parameter.grad`."""
    with torch.enable_grad():
        function = parameter.expand_as(parameter).grad_fn
    assert function is not None
    return function.next_functions[0][0]


def _measure_into(found: list[Tensor]) -> Any:
    def measure(gradients: tuple[Tensor, ...]) -> None:
        gradient = gradients[0].detach()
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        found.append(torch.linalg.vector_norm(wide).square())

    return measure
