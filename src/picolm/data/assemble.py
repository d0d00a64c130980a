"""Second and third pass of preparation: documents in the order of their keys, cut into rows, rows permuted, written as shards.

The second pass goes through the keys bucket by bucket: a bucket is a range of keys, whose documents lie together in every piece.
The rows cut from it are kept in the order of their final places. The third pass gathers each shard from all buckets.
So both shuffles are over the whole input, memory holds one bucket, and any number of workers gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from picolm.data.contract import Rows
from picolm.data.order import named_key, permute
from picolm.data.parquet import write_shard
from picolm.data.tokenize import TokenPiece
from picolm.records import durable
from picolm.records.manifest import hash_file
from picolm.records.prepared import PreparedFolder, ShardRecord, shard_name

BUCKET_TOKENS = 32 << 20
HISTOGRAM_BITS = 16
SHARD_TOKENS_IN_WORK = 64 << 20
"""Tokens of all shards that are written at a time, which bounds memory."""

Tokens = numpy.ndarray[Any, Any]


class SplitCounts(NamedTuple):
    """Size of a split before it is cut."""

    documents: int
    tokens: int
    lengths: dict[str, float]
    """Mean, quantiles and maximum of the documents' lengths in tokens, end-of-text included."""

    def rows(self, row_length: int) -> int:
        return self.tokens // row_length


@dataclass(frozen=True)
class Assembly:
    """One split on its way from token pieces to shards."""

    split: str
    pieces: Sequence[TokenPiece]
    row_length: int
    dtype: numpy.dtype[Any]
    seed: int
    shuffle: bool
    folder: Path
    """For the rows in between."""
    bucket_tokens: int = BUCKET_TOKENS

    def count(self) -> SplitCounts:
        """Documents and tokens of the split."""
        histogram = numpy.zeros(1 << 16, dtype=numpy.int64)  # longer documents count as the longest that is told apart
        documents, tokens, longest = 0, 0, 0
        for piece in self.pieces:
            found = piece.index(self.split)
            if found is not None:
                lengths = found[0].lengths
                documents, tokens = documents + len(lengths), tokens + int(lengths.sum(dtype=numpy.int64))
                longest = max(longest, int(lengths.max()))
                histogram += numpy.bincount(numpy.minimum(lengths, len(histogram) - 1), minlength=len(histogram))
        return SplitCounts(documents, tokens, _describe_lengths(histogram, documents, tokens, longest))

    def bounds(self) -> list[int]:
        """Ascending keys that part the buckets: each holds at most about `bucket_tokens`, more only if keys lie too close."""
        histogram: dict[int, int] = {}
        shift = 64 - HISTOGRAM_BITS if self.shuffle else 10
        for piece in self.pieces:
            found = piece.index(self.split)
            if found is None:
                continue
            bins, places = numpy.unique(found[0].keys >> numpy.uint64(shift), return_inverse=True)
            totals = numpy.bincount(places, weights=found[0].lengths)
            for number, tokens in zip(bins.tolist(), totals.tolist(), strict=True):
                histogram[number] = histogram.get(number, 0) + int(tokens)
        bounds, held = [0], 0
        for number in sorted(histogram):
            if held and held + histogram[number] > self.bucket_tokens:
                bounds.append(number << shift)
                held = 0
            held += histogram[number]
        return [*bounds, 1 << 64]

    def positions(self, numbers: Rows, rows: int) -> Rows:
        """Final place of each row."""
        return permute(numbers, rows, named_key(f"rows/{self.split}", self.seed)) if self.shuffle else numbers

    def cut_rows(self, rows: int) -> Iterator[int]:
        """Second pass: write the rows of every bucket that is not done yet; yields the number of rows so far."""
        bounds = self.bounds()
        first, rest = 0, numpy.empty(0, dtype=self.dtype)
        for number in range(len(bounds) - 1):
            bucket = RowBucket(self.folder, self.split, number)
            if bucket.rest_file.is_file():
                first += len(bucket.positions())
                rest = bucket.rest()
            else:
                stream = numpy.concatenate([rest, *self._documents(bounds[number], bounds[number + 1])])
                count = len(stream) // self.row_length
                cut, rest = (
                    stream[: count * self.row_length].reshape(count, self.row_length),
                    stream[count * self.row_length :].copy(),
                )
                positions = self.positions(numpy.arange(first, first + count), rows)
                order = numpy.argsort(positions)
                bucket.write(cut[order], positions[order], rest)
                first += count
            yield first

    def _documents(self, low: int, high: int) -> list[Tokens]:
        """Tokens of the documents whose key is in [low, high), in ascending order of key."""
        keys, documents = [], []
        for piece in self.pieces:
            found = piece.index(self.split)
            if found is None:
                continue
            index, start = found
            begin = int(numpy.searchsorted(index.keys, numpy.uint64(low)))
            stop = len(index.keys) if high >> 64 else int(numpy.searchsorted(index.keys, numpy.uint64(high)))
            ends = numpy.cumsum(index.lengths, dtype=numpy.int64)
            first = int(ends[begin - 1]) if begin else 0
            count = (int(ends[stop - 1]) if stop else 0) - first
            if count <= 0:
                continue
            offset = (start + first) * self.dtype.itemsize
            tokens = numpy.fromfile(piece.tokens_file, dtype=self.dtype, count=count, offset=offset)
            documents += numpy.split(tokens, ends[begin : stop - 1] - first)
            keys.append(index.keys[begin:stop])
        if not keys:
            return []
        return [documents[place] for place in numpy.argsort(numpy.concatenate(keys), kind="stable")]

    def write_shards(self, out: PreparedFolder, starts: Rows, workers: int) -> Iterator[ShardRecord]:
        """Third pass: write the shards that are not there yet; yields all records in order. `starts` has one more than shards."""
        buckets = [RowBucket(self.folder, self.split, number) for number in range(len(self.bounds()) - 1)]
        indices = [bucket.positions() for bucket in buckets]
        count = len(starts) - 1
        largest = int(numpy.diff(starts).max(initial=0)) * self.row_length
        at_once = max(1, min(workers, SHARD_TOKENS_IN_WORK // max(largest, 1)))

        def write(number: int) -> ShardRecord:
            path = out.shard(shard_name(self.split, number, count))
            low, high = int(starts[number]), int(starts[number + 1])
            if not path.is_file():
                write_shard(path, self._gather(buckets, indices, low, high))
            record = hash_file(path)
            return ShardRecord(path.relative_to(out.path).as_posix(), high - low, record.bytes, record.sha256)

        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(write, range(count))

    def _gather(self, buckets: Sequence[RowBucket], indices: Sequence[Rows], low: int, high: int) -> Tokens:
        tokens_BT = numpy.empty((high - low, self.row_length), dtype=self.dtype)
        for bucket, positions in zip(buckets, indices, strict=True):
            begin, stop = (int(place) for place in numpy.searchsorted(positions, [low, high]))
            if stop > begin:
                tokens_BT[positions[begin:stop] - low] = bucket.rows(begin, stop, self.row_length, self.dtype)
        return tokens_BT


def _describe_lengths(histogram: Tokens, documents: int, tokens: int, longest: int) -> dict[str, float]:
    if not documents:
        return {"n": 0}
    below = numpy.cumsum(histogram)
    p5, median, p95 = (int(numpy.searchsorted(below, share * documents)) for share in (0.05, 0.5, 0.95))
    return {"n": documents, "mean": round(tokens / documents, 3), "p5": p5, "median": median, "p95": p95, "max": longest}


@dataclass(frozen=True)
class RowBucket:
    """Rows cut from one bucket, on disk, in the order of their final places."""

    folder: Path
    split: str
    number: int

    @property
    def tokens_file(self) -> Path:
        return self.folder / f"{self.split}-{self.number:06d}.rows"

    @property
    def positions_file(self) -> Path:
        return self.folder / f"{self.split}-{self.number:06d}.positions.npy"

    @property
    def rest_file(self) -> Path:
        """Written last: the bucket is done when it is there."""
        return self.folder / f"{self.split}-{self.number:06d}.rest.npy"

    def write(self, rows: Tokens, positions: Rows, rest: Tokens) -> None:
        durable.write_bytes(self.tokens_file, rows.tobytes())
        for path, array in ((self.positions_file, positions), (self.rest_file, rest)):
            content = io.BytesIO()
            numpy.save(content, array)
            durable.write_bytes(path, content.getvalue())

    def positions(self) -> Rows:
        """Final places of the rows, ascending; memory-mapped, since those of all buckets are open at once."""
        positions: Rows = numpy.load(self.positions_file, mmap_mode="r")
        return positions

    def rest(self) -> Tokens:
        """Tokens left over for the next bucket."""
        rest: Tokens = numpy.load(self.rest_file)
        return rest

    def rows(self, begin: int, stop: int, row_length: int, dtype: numpy.dtype[Any]) -> Tokens:
        offset, count = begin * row_length * dtype.itemsize, (stop - begin) * row_length
        return numpy.fromfile(self.tokens_file, dtype=dtype, count=count, offset=offset).reshape(-1, row_length)


def shard_starts(rows: int, *, rows_per_shard: int, shards: int | None) -> Rows:
    """First row of each shard, and behind the last: shards of a fixed size, or as many as asked with sizes that differ by one."""
    if shards is None:
        return numpy.append(numpy.arange(0, rows, rows_per_shard, dtype=numpy.int64), rows)
    return numpy.arange(shards + 1, dtype=numpy.int64) * rows // shards
