"""Decoded shards on disk: files of small integers, memory-mapped, made once from parquet, kept within a bound.

`data/shards` asks for the rows of a shard; what it will need next is fetched and decoded in the background.
"""

from __future__ import annotations

import collections
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy

from picolm.base.errors import PicoError
from picolm.data.lock import held
from picolm.data.parquet import ShardFiles, Tokens, read_shard
from picolm.records import durable
from picolm.records.manifest import hash_file
from picolm.records.prepared import PreparedFolder, ShardRecord

OPEN_SHARDS = 64
"""Decoded shards kept mapped at a time."""


class DecodedShards:
    """Decoded copies of shards, each named by the hash of the parquet file it comes from."""

    def __init__(
        self, files: ShardFiles, folder: Path, *, row_length: int, vocab_size: int, limit_bytes: int | None = None
    ) -> None:
        self.row_length = row_length
        self._files = files
        self._folder = folder
        self._vocab_size = vocab_size
        self._limit_bytes = limit_bytes
        self._dtype = numpy.dtype(numpy.uint16 if vocab_size <= 1 << 16 else numpy.uint32)
        self._open: collections.OrderedDict[str, Tokens] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._making: collections.defaultdict[str, threading.Lock] = collections.defaultdict(threading.Lock)
        self._wanted: list[ShardRecord] = []
        self._fetcher: threading.Thread | None = None

    def rows_of(self, shard: ShardRecord) -> Tokens:
        """(rows, row_length) tokens of a shard, memory-mapped; fetched and decoded first if need be."""
        with self._lock:
            if shard.sha256 in self._open:
                self._open.move_to_end(shard.sha256)
                return self._open[shard.sha256]
        path = self.ensure(shard)
        tokens_BT = numpy.memmap(path, dtype=self._dtype, mode="r", shape=(shard.rows, self.row_length))
        with self._lock:
            self._open[shard.sha256] = tokens_BT
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        return tokens_BT

    def file_of(self, shard: ShardRecord) -> Path:
        """Where the decoded form of a shard is kept."""
        return self._folder / f"{shard.sha256[:32]}.{self._dtype.name}"

    def bytes_of(self, shard: ShardRecord) -> int:
        """Size of the decoded form."""
        return shard.rows * self.row_length * self._dtype.itemsize

    def is_here(self, shard: ShardRecord) -> bool:
        """Whether the decoded form is there already."""
        path = self.file_of(shard)
        return path.is_file() and path.stat().st_size == self.bytes_of(shard)

    def ensure(self, shard: ShardRecord) -> Path:
        """The decoded file of a shard, made first if need be."""
        with self._lock:
            making = self._making[shard.sha256]
        with making:
            if not self.is_here(shard):
                self._make(shard)
                self._evict(keep=shard)
            elif self._limit_bytes is not None:
                os.utime(self.file_of(shard))  # the least recently used is given up first
        return self.file_of(shard)

    def will_need(self, shards: Sequence[ShardRecord]) -> None:
        """Fetch and decode these in the background, in this order, as far as they fit."""
        if self._limit_bytes is None:
            return  # local files are decoded as they are met: the thread that reads ahead does it
        with self._lock:
            self._wanted = list(shards)
            if self._fetcher is None or not self._fetcher.is_alive():
                self._fetcher = threading.Thread(target=self._fetch_wanted, name="picolm-fetch", daemon=True)
                self._fetcher.start()

    def _fetch_wanted(self) -> None:
        taken = 0
        while True:
            with self._lock:
                if not self._wanted:
                    self._fetcher = None
                    return
                shard = self._wanted.pop(0)
            taken += self.bytes_of(shard)
            if self._limit_bytes is not None and taken > self._limit_bytes // 2:
                continue  # would push out what is needed before it
            try:
                self.ensure(shard)
            except PicoError:
                continue  # whoever needs the rows asks again, and gets the error

    def _make(self, shard: ShardRecord) -> None:
        """Fetch and decode a shard, once, also if several processes of this machine need it now."""
        try:
            with held(self._folder / f"lock-{shard.sha256[:2]}", wait=True):
                if not self.is_here(shard):
                    self._decode(shard)
        except OSError as error:
            raise PicoError(
                f"the decoded tokens cannot be written to {self._folder}: {error.strerror or error}",
                "free some space, or name another folder in the environment variable PICO_CACHE",
            ) from error

    def _decode(self, shard: ShardRecord) -> None:
        source = self._files.local(shard)
        if hash_file(source).sha256 != shard.sha256:
            raise PicoError(
                f"{source} has changed: its SHA-256 is not that of the manifest", "restore the file, or prepare the data again"
            )
        tokens_BT = read_shard(source, row_length=self.row_length, vocab_size=self._vocab_size)
        if len(tokens_BT) != shard.rows:
            raise PicoError(f"{source} has {len(tokens_BT):,} rows, the manifest says {shard.rows:,}", "prepare the data again")
        durable.write_bytes(self.file_of(shard), tokens_BT.astype(self._dtype).tobytes())
        self._files.release(shard)

    def _evict(self, keep: ShardRecord) -> None:
        """Delete the least recently used copies until all fit the bound."""
        if self._limit_bytes is None:
            return
        with self._lock:
            files = sorted(
                (path for path in self._folder.glob("*.uint*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
            )
            total = sum(path.stat().st_size for path in files)
            for path in files:
                if total <= self._limit_bytes:
                    return
                if path != self.file_of(keep):
                    total -= path.stat().st_size
                    path.unlink()


def cache_folder(folder: PreparedFolder) -> Path:
    """Where decoded shards go: $PICO_CACHE if set, beside the data if that can be written, else the user's cache folder."""
    if os.environ.get("PICO_CACHE"):
        return user_cache() / "shards"
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
