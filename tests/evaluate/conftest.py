"""Models whose log-probabilities are known in closed form, and a tokenizer of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from picolm.model.contract import LanguageModel, build_model
from picolm.model.decoder import DecoderConfig

END_OF_TEXT = 256


class ByteTokenizer:
    """One token per UTF-8 byte, and the end of a text."""

    end_of_text_id = END_OF_TEXT
    vocab_size = 257

    def encode_batch(self, texts: Sequence[str]) -> list[Any]:
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for text in texts]

    def decode(self, ids: Any) -> str:
        return bytes(int(token) for token in ids if token < END_OF_TEXT).decode(errors="replace")


class Bigram(nn.Module):
    """log p(next | token) is a row of a fixed table: sums can be done by hand."""

    vocab_size = 257
    max_seq_len = 16

    def __init__(self, table_VV: Tensor) -> None:
        super().__init__()
        self.table_VV = nn.Parameter(table_VV)
        self.dropout = nn.Dropout(0.5)
        self.calls: list[tuple[int, ...]] = []

    def forward(self, tokens_BT: Tensor) -> Tensor:
        self.calls.append(tuple(tokens_BT.shape))
        return self.dropout(self.table_VV[tokens_BT])

    def log_prob(self, tokens: Sequence[int], start: int = 1) -> float:
        table = torch.log_softmax(self.table_VV.detach().double(), dim=-1)
        return float(table[list(tokens[start - 1 : -1]), list(tokens[start:])].sum())


@pytest.fixture
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture
def bigram() -> Bigram:
    return Bigram(torch.randn(257, 257, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def decoder() -> LanguageModel:
    config = DecoderConfig(
        vocab_size=257,
        max_seq_len=32,
        d_model=16,
        n_layers=2,
        attention_n_heads=4,
        attention_n_kv_heads=2,
        activation_hidden_dim=24,
    )
    return build_model(config, torch.Generator().manual_seed(0))


@pytest.fixture
def write_jsonl(tmp_path: Path) -> Callable[[str, Sequence[Any]], Path]:
    def write(name: str, records: Sequence[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return write
