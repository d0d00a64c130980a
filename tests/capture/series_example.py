"""Small random series of three architectures, saved by transformers, and prepared rows for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from picolm.capture.writer import SnapshotBatch

KINDS = ("gpt_neox", "olmo2", "llama")
STEPS = (0, 1, 2, 4, 8)
VOCABULARY, WIDTH, HEADS = 288, 32, 4


def new_model(kind: str) -> Any:
    import transformers

    shared = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2}
    shared |= {"num_attention_heads": HEADS, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    if kind == "gpt_neox":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**shared))
    if kind == "olmo2":
        return transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**shared, num_key_value_heads=2, pad_token_id=None))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, num_key_value_heads=2))


def write_series(folder: Path, kind: str) -> str:
    """A random walk of weights, one folder per step; the pattern that names them."""
    model, draw = new_model(kind), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    for step in STEPS:
        model.save_pretrained(folder / f"step{step}")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=draw))
    return str(folder / "step{step}")


@pytest.fixture(scope="session")
def all_series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("series")
    for kind in KINDS:
        write_series(folder / kind, kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def llama_series(all_series: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the Llama series that a test may spoil."""
    return Path(shutil.copytree(all_series["llama"], tmp_path / "series"))


@pytest.fixture(scope="session")
def batch() -> SnapshotBatch:
    tokens = numpy.random.default_rng(0).integers(0, VOCABULARY, (6, 13))
    return SnapshotBatch(numpy.arange(6), tokens, "0" * 64)
