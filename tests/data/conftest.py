"""A small tokenizer and small texts for the tests of the data room."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from picolm.data.tokenizer import TextTokenizer, train_tokenizer

WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "mouse",
    "house",
    "tree",
    "river",
    "sees",
    "finds",
    "likes",
    "runs",
    "quickly",
    "slowly",
    "green",
)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Documents of very different lengths."""
    chosen = random.Random(5)
    return [" ".join(chosen.choices(WORDS, k=chosen.choice([1, 5, 40, 300]))) + "." for _ in range(300)]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> TextTokenizer:
    return train_tokenizer(iter(texts), tmp_path_factory.mktemp("tokenizer") / "tokenizer.json", vocab_size=300)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[Sequence[str], str], Path]:
    """Writes texts as JSON lines."""

    def write(texts: Sequence[str], name: str = "texts.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        return path

    return write
