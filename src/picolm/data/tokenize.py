"""First pass of preparation: pieces of text to pieces of tokens on disk, each document under its random key.

Pieces come from `data/documents`; a few are in work at a time, and each is written whole or not at all, so a killed
preparation goes on where it stopped. `data/assemble` reads the result.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from picolm.base.errors import PicoError
from picolm.data.documents import DocumentUnit, Piece, SourceFile, parse_piece, read_pieces
from picolm.data.order import Words, named_key, scramble
from picolm.data.tokenizer import TextTokenizer, TokenArray
from picolm.records import durable

ENCODE_CHARACTERS = 1 << 20
"""Texts go to the tokenizer in batches of about this many characters, and longer texts in segments of it, which bounds memory."""


@dataclass(frozen=True)
class DocumentChoice:
    """Which documents are taken, where they go and in which order: a function of seed, file number and document number."""

    seed: int
    share: float
    val_share: float
    shuffle: bool

    def ids(self, source: int, documents: numpy.ndarray[Any, Any]) -> Words:
        """One number per document of the whole input."""
        return (numpy.uint64(source) << numpy.uint64(40)) + documents.astype(numpy.uint64)

    def taken(self, ids: Words) -> numpy.ndarray[Any, Any]:
        """Whether each document belongs to the random share."""
        return _uniform(ids, named_key("share", self.seed)) < self.share

    def held_out(self, ids: Words) -> numpy.ndarray[Any, Any]:
        """Whether each document of a train file goes to val."""
        return _uniform(ids, named_key("val", self.seed)) < self.val_share

    def keys(self, ids: Words) -> Words:
        """Documents are put in ascending order of these."""
        return scramble(ids, named_key("documents", self.seed)) if self.shuffle else ids


def _uniform(ids: Words, key: int) -> numpy.ndarray[Any, Any]:
    return (scramble(ids, key) >> numpy.uint64(11)).astype(numpy.float64) / (1 << 53)


@dataclass
class Counts:
    """What was met in the text."""

    documents: int = 0
    blank_documents: int = 0
    documents_left_out: int = 0
    """Not in the random share."""
    characters: int = 0
    end_of_text_in_text: int = 0
    """End-of-text tokens that stand in the text of a document itself."""

    def add(self, other: Counts) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class PieceIndex(NamedTuple):
    """Documents of a tokenised piece that go to one split, in ascending order of key."""

    keys: Words
    lengths: numpy.ndarray[Any, numpy.dtype[numpy.uint32]]


@dataclass(frozen=True)
class TokenPiece:
    """A tokenised piece on disk: its documents, by split and key, end-of-text included."""

    folder: Path
    number: int

    @property
    def tokens_file(self) -> Path:
        return self.folder / f"{self.number:07d}.tokens"

    @property
    def index_file(self) -> Path:
        """Written last: the piece is done when it is there."""
        return self.folder / f"{self.number:07d}.npz"

    def write(self, splits: dict[str, tuple[PieceIndex, TokenArray]], counts: Counts, dtype: numpy.dtype[Any]) -> None:
        durable.write_bytes(self.tokens_file, b"".join(tokens.astype(dtype).tobytes() for _, tokens in splits.values()))
        arrays: dict[str, Any] = {"facts": json.dumps(asdict(counts))}
        start = 0
        for split, (index, tokens) in splits.items():
            arrays |= {f"{split}.keys": index.keys, f"{split}.lengths": index.lengths, f"{split}.start": start}
            start += len(tokens)
        content = io.BytesIO()
        numpy.savez(content, **arrays)
        durable.write_bytes(self.index_file, content.getvalue())

    def counts(self) -> Counts:
        with numpy.load(self.index_file) as arrays:
            return Counts(**json.loads(str(arrays["facts"])))

    def index(self, split: str) -> tuple[PieceIndex, int] | None:
        """The documents of a split and the place of their first token in the file; None if there are none."""
        with numpy.load(self.index_file) as arrays:
            if f"{split}.keys" not in arrays:
                return None
            return PieceIndex(arrays[f"{split}.keys"], arrays[f"{split}.lengths"]), int(arrays[f"{split}.start"])


class PieceDone(NamedTuple):
    """Progress of the first pass."""

    bytes_read: int
    """Over all files, compressed."""
    counts: Counts
    tokens: int


@dataclass(frozen=True)
class Tokenizing:
    """The first pass over all files."""

    files: Sequence[SourceFile]
    tokenizer: TextTokenizer
    choice: DocumentChoice
    column: str
    unit: DocumentUnit
    folder: Path

    def run(self, workers: int) -> Iterator[PieceDone]:
        """Tokenise all pieces that are not done yet, `workers` at a time; yields after each, in order."""
        with ThreadPoolExecutor(workers) as pool:
            pending: list[tuple[TokenPiece, int, Future[None] | None]] = []
            try:
                for number, (piece, bytes_before) in enumerate(self._pieces()):
                    target = TokenPiece(self.folder, number)
                    done = target.index_file.is_file()
                    pending.append((target, bytes_before, None if done else pool.submit(self._tokenize, piece, target)))
                    if len(pending) > workers:
                        yield _finish(pending.pop(0))
                while pending:
                    yield _finish(pending.pop(0))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(self) -> Iterator[tuple[Piece, int]]:
        before = 0
        for number, file in enumerate(self.files):
            for piece in read_pieces(file, number, column=self.column, unit=self.unit):
                yield piece, before + piece.bytes_read
            before += file.path.stat().st_size

    def _tokenize(self, piece: Piece, target: TokenPiece) -> None:
        file = self.files[piece.source]
        texts = parse_piece(piece, file, column=self.column)
        ids = self.choice.ids(piece.source, piece.first_document + numpy.arange(len(texts)))
        blank = numpy.array([not text.strip() for text in texts], dtype=bool)
        taken = self.choice.taken(ids)
        chosen = numpy.flatnonzero(taken & ~blank)
        documents, own_ends = self._encode([texts[place] for place in chosen])
        counts = Counts(
            documents=len(chosen),
            blank_documents=int(blank.sum()),
            documents_left_out=int((~taken & ~blank).sum()),
            characters=sum(len(texts[place]) for place in chosen),
            end_of_text_in_text=own_ends,
        )
        to_val = self.choice.held_out(ids[chosen]) if file.split == "train" else numpy.ones(len(chosen), dtype=bool)
        keys = self.choice.keys(ids[chosen])
        splits = {
            split: _in_order_of_key(keys, documents, numpy.flatnonzero(mine))
            for split, mine in (("train", ~to_val), ("val", to_val))
            if mine.any()
        }
        target.write(splits, counts, self.tokenizer.dtype)

    def _encode(self, texts: list[str]) -> tuple[list[TokenArray], int]:
        """Tokens of each text with end-of-text behind, and how many end-of-text tokens the texts hold themselves."""
        end = self.tokenizer.end_of_text_id
        segments = [segment for text in texts for segment in cut_text(text)]
        counts = [len(cut_text(text)) for text in texts]
        encoded: list[TokenArray] = []
        for batch in _batches(segments):
            encoded += self.tokenizer.encode_batch(batch)
        own_ends = int(sum((tokens == end).sum() for tokens in encoded))
        documents, start = [], 0
        tail = numpy.array([end], dtype=numpy.uint32)
        for count in counts:
            documents.append(numpy.concatenate([*encoded[start : start + count], tail]))
            start += count
        return documents, own_ends


def _finish(item: tuple[TokenPiece, int, Future[None] | None]) -> PieceDone:
    piece, bytes_read, future = item
    if future is not None:
        future.result()
    lengths = [found[0].lengths.sum(dtype=numpy.int64) for split in ("train", "val") if (found := piece.index(split)) is not None]
    return PieceDone(bytes_read, piece.counts(), int(sum(lengths)))


def _in_order_of_key(keys: Words, documents: list[TokenArray], mine: numpy.ndarray[Any, Any]) -> tuple[PieceIndex, TokenArray]:
    order = mine[numpy.argsort(keys[mine], kind="stable")]
    lengths = numpy.array([len(documents[place]) for place in order], dtype=numpy.uint32)
    return PieceIndex(keys[order], lengths), numpy.concatenate([documents[place] for place in order])


def _batches(segments: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for segment in segments:
        if batch and characters + len(segment) > ENCODE_CHARACTERS:
            yield batch
            batch, characters = [], 0
        batch.append(segment)
        characters += len(segment)
    if batch:
        yield batch


def cut_text(text: str) -> list[str]:
    """A text in segments of at most `ENCODE_CHARACTERS`, cut after a line end, else a space. Nearly always the text itself."""
    if len(text) <= ENCODE_CHARACTERS:
        return [text]
    segments, start = [], 0
    while len(text) - start > ENCODE_CHARACTERS:
        stop = start + ENCODE_CHARACTERS
        cut = text.rfind("\n", start, stop) + 1 or text.rfind(" ", start, stop) or stop
        cut = cut if cut > start else stop
        segments.append(text[start:cut])
        start = cut
    return [*segments, text[start:]]


def check_counts(counts: Counts) -> None:
    """PicoError if nothing was there to tokenise."""
    if not counts.documents:
        raise PicoError(
            f"there is no text: {counts.blank_documents:,} blank documents, {counts.documents_left_out:,} outside the share",
            "check --column and --share",
        )
