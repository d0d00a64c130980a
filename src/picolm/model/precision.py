"""In which dtype matrix products are taken.

Autocast to 16 bits pays where the processor multiplies them. A CPU without such instructions emulates them, some twenty times
slower than float32 and less exactly; there the products stay in float32, whatever precision was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for products of `dtype`."""
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True


def autocast_is_emulated(device: str) -> bool:
    """Whether autocast on this sort of device would only emulate its dtype."""
    if device != "cpu" or not torch.is_autocast_enabled(device):
        return False
    return not cpu_multiplies(torch.get_autocast_dtype(device))


def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """Dtype of a matrix product of tensors of `dtype`: autocast's, if it is on and not emulated."""
    if not torch.is_autocast_enabled(device) or autocast_is_emulated(device):
        return dtype
    return torch.get_autocast_dtype(device)


def not_emulated(forward: Callable[P, R]) -> Callable[P, R]:
    """Decorator for a model's forward: runs without autocast where that would be emulated."""

    @functools.wraps(forward)
    def exact(*arguments: P.args, **named: P.kwargs) -> R:
        if not autocast_is_emulated("cpu") or any(isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in arguments):
            return forward(*arguments, **named)
        with torch.autocast("cpu", enabled=False):
            return forward(*arguments, **named)

    return exact
