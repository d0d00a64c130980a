"""Autocast where the processor can multiply bfloat16, float32 where it would have to emulate it."""

from __future__ import annotations

import pytest
import torch

from picolm.model import precision
from picolm.model.contract import build_model
from picolm.model.decoder import DecoderConfig

CONFIG = DecoderConfig(
    d_model=24, n_layers=2, vocab_size=61, attention_n_heads=6, attention_n_kv_heads=2, activation_hidden_dim=40
)
TOKENS_BT = torch.randint(0, 61, (2, 20), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("in_hardware", [True, False])
def test_bfloat16_is_used_where_the_cpu_has_it_and_only_there(in_hardware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies", lambda _: in_hardware)
    model = build_model(CONFIG, torch.Generator().manual_seed(0))
    exact = model(TOKENS_BT)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(TOKENS_BT)
    assert logits_BTV.dtype == (torch.bfloat16 if in_hardware else torch.float32)
    assert torch.equal(logits_BTV, exact) is not in_hardware
    assert ((logits_BTV - exact).norm() / exact.norm()).item() < 0.02
