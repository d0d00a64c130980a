"""In which dtype matrix products are taken.

Autocast to bfloat16 pays where the processor multiplies bfloat16. A CPU without such instructions emulates them, some twenty
times slower than float32 and less exactly; there the products stay in float32, whatever precision was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bfloat16_is_emulated(device: str) -> bool:
    """Whether autocast on this sort of device would only emulate its dtype."""
    if device != "cpu" or not torch.is_autocast_enabled(device):
        return False
    return torch.get_autocast_dtype(device) == torch.bfloat16 and not cpu_multiplies_bfloat16()


def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """Dtype of a matrix product of tensors of `dtype`: autocast's, if it is on and not emulated."""
    if not torch.is_autocast_enabled(device) or bfloat16_is_emulated(device):
        return dtype
    return torch.get_autocast_dtype(device)


def not_emulated(forward: Callable[P, R]) -> Callable[P, R]:
    """Decorator for a model's forward: runs without autocast where that would be emulated."""

    @functools.wraps(forward)
    def exact(*arguments: P.args, **named: P.kwargs) -> R:
        if not bfloat16_is_emulated("cpu") or any(isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in arguments):
            return forward(*arguments, **named)
        with torch.autocast("cpu", enabled=False):
            return forward(*arguments, **named)

    return exact
