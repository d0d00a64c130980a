"""A generated corpus on disk: texts, minimal pairs, and what is known exactly. `data/prepare` reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.order import named_key
from picolm.data.synthetic.language import Language, LanguageSettings, build_language
from picolm.data.synthetic.minimal_pairs import draw_pairs, held_out_phenomena, phenomena
from picolm.records import durable
from picolm.records.synthetic import FORMAT, LanguageFolder

HELD_OUT_SENTENCES = 1_000
BATCH_DOCUMENTS = 10_000
"""Drawn at a time, each batch from a stream of its own: memory stays bounded, and the result does not depend on it."""


def synthesize(
    out: Path,
    *,
    documents: int,
    seed: int,
    val_documents: int | None = None,
    pairs: int = 100,
    settings: LanguageSettings | None = None,
    overwrite: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> Language:
    """Write `documents` training documents, a twentieth of that for validation unless said otherwise, `pairs` per phenomenon."""
    if out.exists() and not overwrite:
        raise PicoError(f"{out} exists already", "choose another --out, or add --overwrite")
    language = build_language(settings or LanguageSettings())
    held_out = max(documents // 20, 1) if val_documents is None else val_documents
    if out.exists():
        LanguageFolder(out).read_description()  # only a generated corpus is ever replaced
        shutil.rmtree(out)
    with durable.new_folder(out) as place:
        folder = LanguageFolder(place)
        _write_texts(folder.texts("train"), language, documents, seed, "train", progress)
        _write_texts(folder.texts("val"), language, held_out, seed, "val", lambda _: None)
        folder.minimal_pairs.mkdir()
        for phenomenon in [*phenomena(), *held_out_phenomena(language)]:
            records = draw_pairs(language, phenomenon, pairs, _generator(f"pairs/{phenomenon.name}", seed))
            if records:
                _write_lines(folder.pairs(phenomenon.name), records)
        for part in ("held", "seen") if language.held_out_nouns else ():
            sentences = language.draw_modified(part, HELD_OUT_SENTENCES, _generator(f"modified/{part}", seed))
            _write_lines(folder.texts(f"modified_{part}"), ({"text": text} for text in sentences))
        durable.write_json(folder.description, describe(language, seed, {"train": documents, "val": held_out}))
    return language


def describe(language: Language, seed: int, documents: dict[str, int]) -> dict[str, Any]:
    """What is known exactly about a language and its texts."""
    words = language.words_per_sentence
    return {
        "format": FORMAT,
        "settings": language.settings.model_dump(mode="json"),
        "seed": seed,
        "documents": documents,
        "entropy_nats_per_sentence": language.entropy_per_sentence,
        "entropy_nats_per_document": language.entropy_per_document,
        "entropy_nats_per_word": language.entropy_per_document / (words * language.settings.sentences_per_document),
        "words_per_sentence": words,
        "sentences_per_document": language.settings.sentences_per_document,
        "expected_forms_per_document": language.expected_forms(),
        "held_out_nouns": language.held_out_nouns,
    }


def _generator(stream: str, seed: int) -> numpy.random.Generator:
    return numpy.random.Generator(numpy.random.PCG64(named_key(f"synthetic/{stream}", seed)))


def _write_texts(path: Path, language: Language, count: int, seed: int, split: str, progress: Callable[[float], None]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, count, BATCH_DOCUMENTS):
            generator = _generator(f"{split}/{start // BATCH_DOCUMENTS}", seed)
            texts = language.draw_documents(min(BATCH_DOCUMENTS, count - start), generator).texts
            records = ({"id": f"{split}-{start + number}", "text": text} for number, text in enumerate(texts))
            file.writelines(json.dumps(record) + "\n" for record in records)
            progress(min(start + BATCH_DOCUMENTS, count) / count)


def _write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    durable.write_text(path, "".join(json.dumps(record) + "\n" for record in records))
