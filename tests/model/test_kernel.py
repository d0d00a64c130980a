"""The kernel that is reported is the kernel that runs."""

from __future__ import annotations

import torch

from picolm.model.contract import build_model
from picolm.model.decoder import DecoderConfig
from picolm.model.kernel import attention_kernel


def test_the_reported_kernel_is_the_one_the_profiler_sees() -> None:
    config = DecoderConfig(d_model=24, n_layers=1, vocab_size=61, attention_n_heads=6, attention_n_kv_heads=2)
    model = build_model(config, torch.Generator().manual_seed(0))
    tokens_BT = torch.zeros(1, 33, dtype=torch.long)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model.loss_sum(tokens_BT, tokens_BT)
    names = {event.key for event in profile.key_averages()}
    reported = attention_kernel(model, tokens=33, device=torch.device("cpu"), dtype=torch.float32)
    assert reported == "flash_attention"
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names
