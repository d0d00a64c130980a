"""The built-in data of the demo: a synthetic language, a tokenizer learned from it, and token shards, in one call."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from picolm.data.prepare import PreparedData, PrepareProgress, PrepareSettings, prepare
from picolm.data.synthetic import LanguageSettings, build_language, synthesize
from picolm.data.tokenizer import train_tokenizer
from picolm.records.synthetic import LanguageFolder

TOKENIZER_DOCUMENTS = 5_000
"""As many documents as the tokenizer needs to meet every word."""


def prepare_demo_data(
    out: Path,
    *,
    seed: int,
    train_tokens: int,
    vocab_size: int,
    row_length: int,
    val_tokens: int = 100_000,
    pairs: int = 50,
    settings: LanguageSettings | None = None,
    progress: Callable[[PrepareProgress], None] = lambda _: None,
) -> PreparedData:
    """A prepared folder at `out` with at least `train_tokens` tokens of fresh text, a val split and minimal pairs.

    Every word and mark is at least one token, which gives the number of documents. Beside `out` are left the texts (`<out>-text`)
    and the tokenizer (`<out>-tokenizer.json`).
    """
    language = build_language(settings or LanguageSettings())
    texts, tokenizer_file = out.with_name(f"{out.name}-text"), out.with_name(f"{out.name}-tokenizer.json")
    words = language.settings.sentences_per_document * (language.words_per_sentence + 1)
    documents = math.ceil(train_tokens / words)
    synthesize(
        texts,
        documents=documents,
        val_documents=math.ceil(val_tokens / words),
        pairs=pairs,
        seed=seed,
        settings=language.settings,
        overwrite=texts.exists(),
        progress=lambda share: progress(PrepareProgress("synthesize", share, 0)),
    )
    tokenizer = train_tokenizer(read_texts(LanguageFolder(texts), TOKENIZER_DOCUMENTS), tokenizer_file, vocab_size=vocab_size)
    preparation = PrepareSettings(max_seq_len=row_length - 1, seed=seed, padded_vocab_size=max(vocab_size, tokenizer.vocab_size))
    return prepare([str(texts)], tokenizer=tokenizer, out=out, settings=preparation, progress=progress)


def read_texts(folder: LanguageFolder, count: int) -> Iterator[str]:
    """The first training texts of a generated corpus."""
    with folder.texts("train").open(encoding="utf-8") as lines:
        for line in itertools.islice(lines, count):
            yield json.loads(line)["text"]
