"""Which attention kernel a model gets, so that a run can say it once and a slow one does not go unnoticed."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend

from picolm.model.contract import LanguageModel
from picolm.model.precision import cpu_multiplies


def attention_kernel(model: LanguageModel, *, tokens: int, device: torch.device, dtype: torch.dtype) -> str:
    """`flash_attention`, `cudnn_attention`, `efficient_attention` or `math`, for training on rows of `tokens`, without padding.

    Asked of the very function by which `scaled_dot_product_attention` chooses. `math` holds all scores at once and is slow.
    """
    if device.type == "cpu" and not cpu_multiplies(dtype):
        dtype = torch.float32
    layout = model.layout()
    query_1HTK, key_1GTK = (
        torch.empty(1, heads, tokens, layout.head_width, device=device, dtype=dtype, requires_grad=True)
        for heads in (layout.query_heads, layout.key_value_heads)
    )
    grouped = layout.query_heads != layout.key_value_heads
    choice = torch._fused_sdp_choice(query_1HTK, key_1GTK, key_1GTK, None, 0.0, True, enable_gqa=grouped)
    return str(SDPBackend(choice).name).lower()
