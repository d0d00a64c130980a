"""Rows of tokens from parquet shards, each decoded once, through Arrow buffers, into a memory-mapped file of small integers.

A row number arrives from `data/loader`; the shard and the place in it are arithmetic; tokens leave as int64. No token is ever
a Python integer.
"""

from __future__ import annotations

import collections
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import Rows
from picolm.records import durable
from picolm.records.manifest import hash_file
from picolm.records.prepared import COLUMN, PreparedFolder, ShardRecord, split_fingerprint

if TYPE_CHECKING:
    import pyarrow

OPEN_SHARDS = 64
"""Decoded shards kept mapped at a time, per split."""


class ShardedRows:
    """The rows of one split: `TokenRows` over a list of shards."""

    def __init__(
        self, shards: Sequence[ShardRecord], *, files: ShardFiles, row_length: int, vocab_size: int, cache: Path, name: str
    ) -> None:
        self.name = name
        self.row_length = row_length
        self.fingerprint = split_fingerprint(row_length, list(shards))
        self._shards = list(shards)
        self._files = files
        self._cache = DecodedShards(files, cache, row_length=row_length, vocab_size=vocab_size)
        self._ends = numpy.cumsum([shard.rows for shard in shards], dtype=numpy.int64)
        self.rows = int(self._ends[-1]) if len(shards) else 0

    def read(self, rows: Rows) -> Rows:
        """Tokens of the rows asked for, (len(rows), row_length), int64, in the order asked for."""
        self._check(rows)
        numbers = numpy.searchsorted(self._ends, rows, side="right")
        tokens = numpy.empty((len(rows), self.row_length), dtype=numpy.int64)
        for number in numpy.unique(numbers):
            mine = numbers == number
            shard = self._shards[number]
            tokens[mine] = self._cache.rows_of(shard)[rows[mine] - (self._ends[number] - shard.rows)]
        return tokens

    def shards_of(self, rows: Rows) -> list[ShardRecord]:
        """The shards that hold these rows, in the order of first need."""
        numbers = numpy.searchsorted(self._ends, rows, side="right")
        _, first = numpy.unique(numbers, return_index=True)
        return [self._shards[numbers[place]] for place in numpy.sort(first)]

    def will_need(self, rows: Rows) -> None:
        """Say which rows come next, so that remote shards are fetched before they are needed."""
        self._files.will_need(self.shards_of(rows))

    def _check(self, rows: Rows) -> None:
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            wrong = int(rows.min() if rows.min() < 0 else rows.max())
            raise PicoError(f"{self.name} has no row {wrong:,}", f"its rows are 0 to {self.rows - 1:,}")


class ShardFiles:
    """Where the parquet file of a shard is: here, in the prepared folder. `data/remote` has the kind that downloads first."""

    def __init__(self, folder: PreparedFolder) -> None:
        self._folder = folder

    def local(self, shard: ShardRecord) -> Path:
        """The file, there and of the right size; PicoError if it is not."""
        path = self._folder.shard(shard.name)
        if not path.is_file():
            raise PicoError(f"{path} is missing", f"`pico data verify {self._folder.path}` lists everything that is wrong")
        size = path.stat().st_size
        if size != shard.bytes:
            raise PicoError(
                f"{path} has {size:,} bytes instead of {shard.bytes:,}", "restore the file, or prepare the data again"
            )
        return path

    def will_need(self, shards: Sequence[ShardRecord]) -> None:
        """Nothing to do for files that are here."""


class DecodedShards:
    """Decoded shards on disk, named by the hash of the parquet file they come from, memory-mapped on demand."""

    def __init__(self, files: ShardFiles, cache: Path, *, row_length: int, vocab_size: int) -> None:
        self._files = files
        self._folder = cache
        self._row_length = row_length
        self._vocab_size = vocab_size
        self._dtype = numpy.dtype(numpy.uint16 if vocab_size <= 1 << 16 else numpy.uint32)
        self._open: collections.OrderedDict[str, numpy.ndarray[Any, Any]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def rows_of(self, shard: ShardRecord) -> numpy.ndarray[Any, Any]:
        """(rows, row_length) tokens of a shard, memory-mapped; decoded first if need be."""
        with self._lock:
            if shard.sha256 in self._open:
                self._open.move_to_end(shard.sha256)
                return self._open[shard.sha256]
            tokens_BT = self._map(shard)
            self._open[shard.sha256] = tokens_BT
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
            return tokens_BT

    def file_of(self, shard: ShardRecord) -> Path:
        """Where the decoded form of a shard is kept."""
        return self._folder / f"{shard.sha256[:32]}.{self._dtype.name}"

    def _map(self, shard: ShardRecord) -> numpy.ndarray[Any, Any]:
        path = self.file_of(shard)
        expected = shard.rows * self._row_length * self._dtype.itemsize
        if not path.is_file() or path.stat().st_size != expected:
            self._decode(shard, path)
        return numpy.memmap(path, dtype=self._dtype, mode="r", shape=(shard.rows, self._row_length))

    def _decode(self, shard: ShardRecord, path: Path) -> None:
        source = self._files.local(shard)
        if hash_file(source).sha256 != shard.sha256:
            raise PicoError(
                f"{source} has changed: its SHA-256 is not that of the manifest", "restore the file, or prepare the data again"
            )
        tokens_BT = read_shard(source, row_length=self._row_length, vocab_size=self._vocab_size)
        if len(tokens_BT) != shard.rows:
            raise PicoError(f"{source} has {len(tokens_BT):,} rows, the manifest says {shard.rows:,}", "prepare the data again")
        try:
            durable.write_bytes(path, tokens_BT.astype(self._dtype).tobytes())
        except OSError as error:
            raise PicoError(
                f"the decoded tokens cannot be written to {self._folder}: {error.strerror or error}",
                "free some space, or name another folder in the environment variable PICO_CACHE",
            ) from error


def read_shard(path: Path, *, row_length: int | None, vocab_size: int) -> numpy.ndarray[Any, Any]:
    """(rows, row_length) tokens of a parquet shard in its stored type, checked; `row_length` None takes that of the first row."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            if COLUMN not in file.schema_arrow.names:
                columns = ", ".join(file.schema_arrow.names)
                raise PicoError(
                    f"{path} has no column `{COLUMN}`, but: {columns}", "text is made into tokens by `pico data prepare`"
                )
            column = file.read(columns=[COLUMN]).column(COLUMN)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        raise PicoError(
            f"{path} cannot be read as parquet: {error}", "the file is truncated or not parquet; restore it"
        ) from error
    return _rows_of_column(column, path, row_length, vocab_size)


def _rows_of_column(column: pyarrow.ChunkedArray, path: Path, row_length: int | None, vocab_size: int) -> numpy.ndarray[Any, Any]:
    import pyarrow.types

    kind = column.type
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    if not is_list or not pyarrow.types.is_integer(kind.value_type):
        raise PicoError(f"{path}: column `{COLUMN}` holds {kind}, not lists of integers", "name a folder of token shards")
    if column.null_count:
        raise PicoError(f"{path}: {column.null_count:,} rows of `{COLUMN}` are empty", "prepare the data again")
    length = row_length if row_length is not None else (len(column[0]) if len(column) else 0)
    parts = [_rows_of_chunk(chunk, path, length) for chunk in column.chunks if len(chunk)]
    tokens_BT = numpy.concatenate(parts) if parts else numpy.empty((0, length), dtype=numpy.uint16)
    if tokens_BT.size and not 0 <= int(tokens_BT.min()) <= int(tokens_BT.max()) < vocab_size:
        worst = int(tokens_BT.min() if tokens_BT.min() < 0 else tokens_BT.max())
        raise PicoError(
            f"{path} holds token {worst}, the vocabulary has {vocab_size:,}", "prepare the data with the right tokenizer"
        )
    return tokens_BT


def _rows_of_chunk(chunk: pyarrow.Array, path: Path, length: int) -> numpy.ndarray[Any, Any]:
    """One Arrow chunk as a matrix over its own buffer."""
    values = chunk.flatten()
    lengths = chunk.value_lengths().to_numpy(zero_copy_only=False)
    if values.null_count or (lengths != length).any():
        wrong = int(numpy.flatnonzero(lengths != length)[0]) if (lengths != length).any() else 0
        raise PicoError(
            f"{path}: row {wrong} has {int(lengths[wrong])} tokens, the others {length}", "all rows of a folder have one length"
        )
    tokens_BT: numpy.ndarray[Any, Any] = values.to_numpy(zero_copy_only=True).reshape(-1, length)
    return tokens_BT


def cache_folder(folder: PreparedFolder) -> Path:
    """Where decoded shards go: $PICO_CACHE if set, beside the data if that can be written, else the user's cache folder."""
    named = os.environ.get("PICO_CACHE")
    if named:
        return Path(named) / "shards"
    if os.access(folder.path, os.W_OK):
        return folder.cache
    digest = hashlib.sha256(str(folder.path.resolve()).encode()).hexdigest()[:16]
    return user_cache() / "shards" / digest


def user_cache() -> Path:
    """The user's cache folder: $PICO_CACHE, else $XDG_CACHE_HOME/picolm, else ~/.cache/picolm."""
    if os.environ.get("PICO_CACHE"):
        return Path(os.environ["PICO_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "picolm"
