"""Texts and token rows whose perplexity is measured. Whatever the source, documents leave as token ids with a domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picolm.base.errors import PicoError
from picolm.data.contract import open_source
from picolm.evaluate.contract import Given
from picolm.evaluate.files import data_files, hash_of_files, read_records

if TYPE_CHECKING:
    from picolm.data.contract import TokenRows
    from picolm.evaluate.scorer import Scorer

CHUNK = 256
"""Documents handed out together; the scorer sorts within a chunk."""


class Document(NamedTuple):
    """Token ids, of which all but the first are scored, and the bytes of text the scored ones stand for."""

    domain: str
    tokens: NDArray[np.integer[Any]]
    bytes: int | None = None
    """None if the text is not known."""


class Documents(Protocol):
    """A source that can be read again and again, always the same."""

    @property
    def data_hash(self) -> str: ...
    @property
    def kind(self) -> str: ...
    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]: ...


class TextDocuments:
    """Texts by domain, encoded once; each is scored after the prefix token."""

    kind = "text"

    def __init__(self, texts: Sequence[tuple[str, str]], data_hash: str, given: Given) -> None:
        """`texts`: (domain, text)."""
        if given.tokenizer is None:
            raise PicoError("texts can only be scored with the model's tokenizer", "keep its tokenizer.json beside the model")
        self.data_hash = data_hash
        self._domains = [domain for domain, _ in texts]
        self._bytes = [len(text.encode()) for _, text in texts]
        encoded = given.tokenizer.encode_batch([text for _, text in texts])
        self._tokens = [np.asarray(ids, dtype=np.int32) for ids in encoded]

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]:
        prefix = [scorer.prefix_token_id]
        documents = (
            Document(domain, np.concatenate([prefix, tokens]), size)
            for domain, tokens, size in zip(self._domains, self._tokens, self._bytes, strict=True)
        )
        return _in_chunks(documents)


class RowDocuments:
    """Rows of T + 1 tokens of a prepared split; the first T predict the last T."""

    kind = "tokens"

    def __init__(self, rows: TokenRows, domain: str, limit: int | None) -> None:
        self.data_hash = rows.fingerprint
        self._rows = rows
        self._domain = domain
        self._count = rows.rows if limit is None else min(limit, rows.rows)

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]:
        for first in range(0, self._count, CHUNK):
            tokens_BT = self._rows.read(np.arange(first, min(first + CHUNK, self._count)))
            yield [Document(self._domain, tokens_T) for tokens_T in tokens_BT]


def open_documents(data: str | None, *, split: str, text_field: str, limit: int | None, given: Given) -> Documents:
    """The documents at a path; None: the run's own prepared data. PicoError if they cannot be scored."""
    if data is None:
        if given.data is None:
            raise PicoError(
                "`data` is not given, and there is no prepared data of a run to fall back on", "name a file or folder"
            )
        return RowDocuments(given.data.split(split), split, limit)
    path = Path(data).expanduser()
    if (path / "manifest.json").is_file():
        return RowDocuments(open_source(str(path), {}).split(split), split, limit)
    return _open_texts(path / split if (path / split).is_dir() else path, text_field, limit, given)


def _open_texts(path: Path, text_field: str, limit: int | None, given: Given) -> TextDocuments:
    files = data_files(str(path))
    texts: list[tuple[str, str]] = []
    for file in files:
        records = list(read_records(file, {text_field: str}))[:limit]
        texts += [(file.stem, record.values[text_field]) for record in records if record.values[text_field]]
    if not texts:
        raise PicoError(f"data: {path} holds only empty texts")
    return TextDocuments(texts, hash_of_files(files), given)


def _in_chunks(documents: Iterator[Document]) -> Iterator[Sequence[Document]]:
    chunk: list[Document] = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
