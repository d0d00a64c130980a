"""Texts and token rows whose perplexity is measured. Whatever the source, documents leave as token ids with a domain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picolm.base.errors import PicoError
from picolm.data.contract import open_source
from picolm.evaluate.contract import Given
from picolm.evaluate.files import Record, data_files, hash_of_files, read_records, text_of

if TYPE_CHECKING:
    from picolm.data.contract import TokenRows
    from picolm.evaluate.scorer import Scorer, Tokenizer

CHUNK = 256
"""Documents handed out together; the scorer sorts within a chunk."""

TOKEN_COLUMN = "input_ids"
_SHARD = re.compile(r"-?\d{4,5}(-of-\d+)?$")


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
    def starts_with_prefix(self) -> bool:
        """Whether the prefix token stands before each document, so that its first own token is scored too."""
        ...

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]: ...


class TextDocuments:
    """Texts by domain, encoded once."""

    def __init__(self, texts: Sequence[tuple[str, str]], data_hash: str, given: Given, *, prefix: bool) -> None:
        """`texts`: (domain, text)."""
        if given.tokenizer is None:
            raise PicoError("texts can only be scored with the model's tokenizer", "keep its tokenizer.json beside the model")
        self.data_hash = data_hash
        self.starts_with_prefix = prefix
        self._domains = [domain for domain, _ in texts]
        self._bytes = [len(text.encode()) for _, text in texts]
        encoded = given.tokenizer.encode_batch([text for _, text in texts])
        self._tokens = [np.asarray(ids, dtype=np.int32) for ids in encoded]

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]:
        for first in range(0, len(self._tokens), CHUNK):
            yield [self._document(index, scorer) for index in range(first, min(first + CHUNK, len(self._tokens)))]

    def _document(self, index: int, scorer: Scorer) -> Document:
        tokens = self._tokens[index]
        if not self.starts_with_prefix:
            return Document(self._domains[index], tokens)
        return Document(self._domains[index], np.concatenate([[scorer.prefix_token_id], tokens]), self._bytes[index])


class TokenDocuments:
    """Documents that come as token ids; their first token is never scored."""

    starts_with_prefix = False

    def __init__(self, documents: Sequence[tuple[str, NDArray[np.int32]]], data_hash: str, tokenizer: Tokenizer | None) -> None:
        """`documents`: (domain, token ids). With a tokenizer, the bytes they stand for are known."""
        self.data_hash = data_hash
        self._documents = [Document(domain, ids, _bytes_of(ids, tokenizer)) for domain, ids in documents]

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]:
        for first in range(0, len(self._documents), CHUNK):
            yield self._documents[first : first + CHUNK]

    def token_ids(self) -> Iterator[NDArray[np.integer[Any]]]:
        """The ids alone, in any shape."""
        yield from (document.tokens for document in self._documents)


class RowDocuments:
    """Rows of T + 1 tokens of a prepared split, read from disk each time; the first T predict the last T."""

    starts_with_prefix = False

    def __init__(self, rows: TokenRows, domain: str, limit: int | None, tokenizer: Tokenizer | None) -> None:
        self.data_hash = rows.fingerprint
        self._rows = rows
        self._domain = domain
        self._count = rows.rows if limit is None else min(limit, rows.rows)
        self._tokenizer = tokenizer
        self._bytes: dict[int, int | None] = {}
        if not self._count:
            raise PicoError(f"data: split `{domain}` has no rows")

    def token_ids(self) -> Iterator[NDArray[np.integer[Any]]]:
        """The ids alone, in any shape."""
        for first in range(0, self._count, CHUNK):
            yield self._rows.read(np.arange(first, min(first + CHUNK, self._count)))

    def chunks(self, scorer: Scorer) -> Iterator[Sequence[Document]]:
        for first, rows_BT in zip(range(0, self._count, CHUNK), self.token_ids(), strict=True):
            numbers = range(first, first + len(rows_BT))
            yield [Document(self._domain, row, self._bytes_of(number, row)) for number, row in zip(numbers, rows_BT, strict=True)]

    def _bytes_of(self, number: int, row_T: NDArray[np.integer[Any]]) -> int | None:
        if number not in self._bytes:
            self._bytes[number] = _bytes_of(row_T, self._tokenizer)
        return self._bytes[number]


def _bytes_of(tokens: NDArray[np.integer[Any]], tokenizer: Tokenizer | None) -> int | None:
    """UTF-8 bytes of the text of all tokens but the first; marks between documents stand for none."""
    if tokenizer is None:
        return None
    text_ids = [int(token) for token in tokens[1:] if token != tokenizer.end_of_text_id]
    return len(tokenizer.decode(text_ids).encode())


class Source(NamedTuple):
    """Where documents come from and how they are read."""

    data: str | None
    """A path or a Hub name; None: the run's own prepared data."""
    split: str = "val"
    text_field: str = "text"
    domain_field: str | None = None
    """Column that names a document's domain; None: each file is a domain."""
    limit: int | None = None
    """Documents per file."""
    prefix: bool = True
    """Whether texts are scored after the prefix token."""


def open_documents(source: Source, given: Given) -> Documents:
    """The documents of a source; PicoError if they cannot be scored."""
    if source.data is None and given.data is None:
        raise PicoError("`data` is not given, and there is no prepared data of a run to fall back on", "name a file or folder")
    prepared = _prepared(source, given)
    if prepared is not None:
        return _in_vocabulary(RowDocuments(prepared, source.split, source.limit, given.tokenizer), source, given)
    assert source.data is not None, "a path or a Hub name from here on"
    files = data_files(source.data, split=source.split)
    records = [(_domain_of(file, record, source), record) for file in files for record in _first(file, source.limit)]
    if _is_tokens_only(records, source, given):
        tokens = [(domain, _ids(record)) for domain, record in records]
        rows = TokenDocuments([each for each in tokens if len(each[1]) > 1], hash_of_files(files), given.tokenizer)
        return _in_vocabulary(rows, source, given)
    texts = [(domain, text) for domain, record in records if (text := text_of(record, source.text_field))]
    if not texts:
        raise PicoError(f"data: {source.data} holds only empty texts")
    return TextDocuments(texts, hash_of_files(files), given, prefix=source.prefix)


def _prepared(source: Source, given: Given) -> TokenRows | None:
    """The rows of prepared data, of the run or of a folder; None if the source is something else."""
    if source.data is None:
        return None if given.data is None else given.data.split(source.split)
    path = Path(source.data).expanduser()
    return open_source(str(path), {}).split(source.split) if (path / "manifest.json").is_file() else None


def _in_vocabulary(documents: RowDocuments | TokenDocuments, source: Source, given: Given) -> Documents:
    """The documents, if every token id of them is one that the model knows."""
    for ids in documents.token_ids() if given.vocab_size is not None else ():
        if int(ids.max()) >= (given.vocab_size or 0):
            raise PicoError(
                f"data: {source.data or 'the prepared data'} holds token id {int(ids.max())}; the model knows {given.vocab_size}",
                "prepare the data with the model's own tokenizer",
            )
    return documents


def _first(file: Path, limit: int | None) -> Iterator[Record]:
    for number, record in enumerate(read_records(file)):
        if limit is not None and number >= limit:
            return
        yield record


def _domain_of(file: Path, record: Record, source: Source) -> str:
    if source.domain_field is None:
        return _SHARD.sub("", file.stem) or source.split
    domain = record.values.get(source.domain_field)
    if not isinstance(domain, str):
        raise PicoError(f"data: {record.place} has no text in the column `{source.domain_field}` (domain_field)")
    return domain


def _is_tokens_only(records: Sequence[tuple[str, Record]], source: Source, given: Given) -> bool:
    """Whether to score the token ids as they stand: text, where there is both, is scored with the model's own tokenizer."""
    if not all(TOKEN_COLUMN in record.values for _, record in records):
        return False
    return given.tokenizer is None or not all(source.text_field in record.values for _, record in records)


def _ids(record: Record) -> NDArray[np.int32]:
    ids = record.values[TOKEN_COLUMN]
    if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise PicoError(f"data: {record.place}: `{TOKEN_COLUMN}` is not a list of token ids")
    return np.asarray(ids, dtype=np.int32)
