"""A tiny corpus of random sentences, and a configuration that trains a tiny decoder on it in a second."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picolm.data.prepare import PrepareSettings, prepare
from picolm.data.tokenizer import train_tokenizer
from picolm.train.config import RunConfig, parse_config

WORDS = ["the", "a", "cat", "dog", "bird", "sees", "likes", "hears", "big", "small", "red", "that", "runs", "sleeps", "and"]


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 12))) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data: rows of 17 tokens, a few hundred of them, and a val split."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, count, seed in (("train", 900, 0), ("val", 120, 1)):
        (folder / f"{name}.txt").write_text("\n".join(sentences(count, seed)))
    tokenizer = train_tokenizer(iter(sentences(900, 0)), folder / "tokenizer", vocab_size=300)
    prepare(
        [str(folder / "train.txt")],
        tokenizer=tokenizer,
        out=folder / "data",
        settings=PrepareSettings(max_seq_len=16),
        val_sources=[str(folder / "val.txt")],
    )
    return folder / "data"


def tiny_content(data: Path, runs: Path, name: str = "tiny") -> dict[str, Any]:
    """The training file as a mapping; tests change what they are about."""
    return {
        "data": {"dataset": {"name": str(data)}, "dataloader": {"batch_size": 8}},
        "model": {
            "d_model": 16,
            "n_layers": 2,
            "vocab_size": 320,
            "max_seq_len": 16,
            "attention_n_heads": 2,
            "attention_n_kv_heads": 1,
            "activation_hidden_dim": 32,
        },
        "training": {
            "max_steps": 8,
            "optimization": {"lr": 0.01, "lr_warmup_steps": 2, "gradient_accumulation_steps": 2},
            "fabric": {"precision": "32-true", "accelerator": "cpu"},
        },
        "checkpointing": {
            "runs_dir": str(runs),
            "run_name": name,
            "steps": [1, 2, 5],
            "learning_dynamics": {"eval_data": str(data), "eval_sequences": 6, "batch_size": 4},
        },
        "evaluation": {"metrics": None},
        "monitoring": {"logging": {"log_every_n_steps": 1}},
    }


ConfigMaker = Callable[..., RunConfig[Any]]


def merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`content` with nested changes."""
    result = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


@pytest.fixture
def make_config(tiny_data: Path, tmp_path: Path) -> ConfigMaker:
    """Resolved configurations of the tiny run: `make_config("name", training={...})`."""

    def make(name: str = "tiny", **changes: Any) -> RunConfig[Any]:
        content = merged(tiny_content(tiny_data, tmp_path / "runs", name), changes)
        return parse_config(content, "tiny.yaml", default_name=name)

    return make
