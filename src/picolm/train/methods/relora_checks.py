"""What must hold at every moment of ReLoRA. A broken invariant that no departure was asked to break is an error.

The others are series of the log: `relora_merge_output_change`, `relora_b_gradient_norm`, `relora_b_norm`, `relora_b_after_reset`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.train.methods.relora_layers import LowRankLinear

LARGEST_MERGE_CHANGE = 1e-3
"""Of a logit, relative to the largest. Rounding in float32 gives some 1e-6; more than this is no rounding."""

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a value -> integers that have its bits."""

Layers = Mapping[str, LowRankLinear]


def check_beginning(layers: Layers, *, dead: bool) -> None:
    """Where factors begin, the change is zero and can be learnt: B is zero and A is not, unless the start is to be dead."""
    for name, layer in layers.items():
        if bool(layer.lora_b.any()) or (not dead and not bool(layer.lora_a.any())):
            raise _broken(f"{name}: the change does not begin at zero with a gradient", "B zero and A not")


def check_movement(layers: Layers) -> bool:
    """The first update of low rank had a gradient for every B; whether this was one that had gradients at all."""
    gradients = {name: layer.lora_b.grad for name, layer in layers.items()}
    for name, gradient in gradients.items():
        if gradient is not None and not bool(gradient.any()):
            raise _broken(f"{name}: the gradient of B is zero", "a gradient from the first update of low rank on")
    return all(gradient is not None for gradient in gradients.values())


def check_merge(change: float, number: int) -> None:
    """The model computes after a merge what it computed before."""
    if not change <= LARGEST_MERGE_CHANGE:
        raise _broken(f"merge {number} changed a logit by {change:.1e} of the largest", "rounding")


def fingerprints(layers: Layers) -> dict[str, int]:
    """Name -> sum of the bits of W as integers: exact, whatever the order of the sum. Without storage there are none."""
    return {name: _fingerprint(layer.weight.detach()) for name, layer in layers.items() if not layer.weight.is_meta}


def check_frozen(layers: Layers, before: Mapping[str, int]) -> None:
    """Frozen weights are what they were after the last merge."""
    changed = sorted(name for name, fingerprint in fingerprints(layers).items() if before[name] != fingerprint)
    if changed:
        raise _broken(f"frozen weights changed since the last merge: {', '.join(changed)}", "no change between merges")


def _fingerprint(weight_OI: Tensor) -> int:
    bits_OI = weight_OI.contiguous().view(INTEGERS[weight_OI.element_size()])
    return int(bits_OI.sum(dtype=torch.int64))


def _broken(what: str, allowed: str) -> PicoError:
    return PicoError(
        f"ReLoRA: {what}; the method allows {allowed}",
        "something else writes into these parameters, or the targets do not act on the loss: see training.method.targets",
    )
