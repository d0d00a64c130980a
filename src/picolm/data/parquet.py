"""One token shard as a parquet file: written, found, read and checked, through Arrow buffers, never through Python integers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.prepared import COLUMN, PreparedFolder, ShardRecord

if TYPE_CHECKING:
    import pyarrow

ROW_GROUP_TOKENS = 4 << 20

Tokens = numpy.ndarray[Any, Any]


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

    def release(self, shard: ShardRecord) -> None:
        """The decoded copy is all that is needed. Prepared folders keep their files."""


def write_shard(path: Path, tokens_BT: Tokens) -> None:
    """Write a parquet file with one column `input_ids` of int32 lists, the layout of pretokenized-dolma; whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    rows, row_length = tokens_BT.shape
    values = pyarrow.array(tokens_BT.astype(numpy.int32).reshape(-1))
    offsets = pyarrow.array(numpy.arange(0, rows * row_length + 1, row_length, dtype=numpy.int32))
    table = pyarrow.table({COLUMN: pyarrow.ListArray.from_arrays(offsets, values)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = durable.temporary_sibling(path)
    group_rows = max(ROW_GROUP_TOKENS // row_length, 1)
    try:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", row_group_size=group_rows, write_statistics=False)
        durable.flush_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_shard(path: Path, *, row_length: int | None, vocab_size: int) -> numpy.ndarray[Any, Any]:
    """(rows, row_length) tokens of a parquet shard in its stored type, checked; `row_length` None takes that of the first row."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
            check_schema(file.schema_arrow, str(path))
            column = file.read(columns=[COLUMN]).column(COLUMN)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        raise PicoError(
            f"{path} cannot be read as parquet: {error}", "the file is truncated or not parquet; restore it"
        ) from error
    return _rows_of_column(column, path, row_length, vocab_size)


def check_schema(schema: pyarrow.Schema, path: str) -> None:
    """PicoError unless a file has the column of a token shard."""
    import pyarrow.types

    if COLUMN not in schema.names:
        hint = "text is made into tokens by `pico data prepare`"
        raise PicoError(f"{path} has no column `{COLUMN}`, but: {', '.join(schema.names)}", hint)
    kind = schema.field(COLUMN).type
    is_list = pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    if not is_list or not pyarrow.types.is_integer(kind.value_type):
        raise PicoError(f"{path}: column `{COLUMN}` holds {kind}, not lists of integers", "name a folder of token shards")


def _rows_of_column(column: pyarrow.ChunkedArray, path: Path, row_length: int | None, vocab_size: int) -> numpy.ndarray[Any, Any]:
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
