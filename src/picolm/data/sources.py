"""Opens what `data.dataset` names: a prepared folder, a mixture of several, a source of one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import DATA_SOURCES, DEFAULT_CACHE_GIGABYTES, DataConfig, Rows, TokenRows, TokenSource, open_source
from picolm.data.decoded import DecodedShards, cache_folder
from picolm.data.order import IdentityOrder, PermutedOrder, RowOrder, build_order
from picolm.data.parquet import ShardFiles
from picolm.data.remote import RemoteFolder, RemoteShardFiles, fetch_description, is_url, remote_cache
from picolm.data.shards import ShardedRows
from picolm.records.manifest import content
from picolm.records.prepared import PreparedFolder, shards_of

ATTEMPTS_TO_OPEN = 2
"""A person is waiting, and the name may just be misspelt."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class PreparedData:
    """A folder made by `pico data prepare`: a `TokenSource`."""

    folder: PreparedFolder
    manifest: dict[str, Any]
    files: ShardFiles
    cache: Path
    limit_bytes: int | None = None
    """Largest size of the decoded copies; None where the shards are local."""
    url: str = ""
    """Where remote data is."""

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def name(self) -> str:
        return self.url or str(self.folder.path)

    @property
    def fingerprint(self) -> str:
        """Stands for tokenizer and rows of every split."""
        return str(self.manifest["fingerprint"])

    @property
    def row_length(self) -> int:
        return int(self.manifest["row_length"])

    @property
    def splits(self) -> list[str]:
        return list(self.manifest["splits"])

    @property
    def tokenizer_file(self) -> Path | None:
        """`tokenizer.json`; None for token shards whose text cannot be had back."""
        return self.folder.tokenizer_file if self.folder.tokenizer_file.is_file() else None

    def split(self, name: str) -> ShardedRows:
        """The rows of `train` or `val`; PicoError if there is no such split."""
        return ShardedRows(shards_of(self.manifest, name, self.name), self.decoded(), name=f"{self.name} ({name})")

    def decoded(self) -> DecodedShards:
        """Where the decoded shards are kept."""
        return DecodedShards(
            self.files,
            self.cache,
            row_length=self.row_length,
            vocab_size=int(self.manifest["vocab_size"]),
            limit_bytes=self.limit_bytes,
        )


def open_prepared(path: Path | str, *, cache_gigabytes: float = DEFAULT_CACHE_GIGABYTES) -> PreparedData:
    """The prepared data in a folder; PicoError if it is missing, unfinished or of another format.

    The manifest may say that its shards are elsewhere (`base`); copies of those are kept up to `cache_gigabytes`.
    """
    folder = PreparedFolder(Path(path))
    manifest = folder.manifest()
    if manifest.get("base"):
        return _remote(folder, manifest, manifest["base"], str(folder.path), cache_gigabytes)
    return PreparedData(folder, manifest, ShardFiles(folder), cache_folder(folder))


def open_remote(url: str, *, cache_gigabytes: float = DEFAULT_CACHE_GIGABYTES, refresh: bool = False) -> PreparedData:
    """The prepared data behind a URL. Manifest and tokenizer are fetched once; shards when they are needed."""
    folder = fetch_description(RemoteFolder(url, attempts=ATTEMPTS_TO_OPEN), refresh=refresh)
    manifest = folder.manifest()
    return _remote(folder, manifest, manifest.get("base") or url, url, cache_gigabytes)


def _remote(folder: PreparedFolder, manifest: dict[str, Any], base: str, name: str, cache_gigabytes: float) -> PreparedData:
    cache = remote_cache(base)
    files = RemoteShardFiles(RemoteFolder(base), cache / "downloads")
    return PreparedData(folder, manifest, files, cache / "shards", int(cache_gigabytes * 1e9), name)


@DATA_SOURCES.register("prepared")
def prepared(*, path: str) -> PreparedData:
    """A folder made by `pico data prepare`."""
    return open_prepared(path)


def open_folder_or_hub(name: str, cache_gigabytes: float) -> TokenSource:
    """The prepared folder `name`, else the URL, else the dataset of that name on the Hub."""
    if Path(name).exists():
        return open_prepared(name, cache_gigabytes=cache_gigabytes)
    if is_url(name):
        return open_remote(name, cache_gigabytes=cache_gigabytes)
    if not HUB_NAME.fullmatch(name):
        raise PicoError(
            f"data.dataset.name = {name!r}: there is no such folder",
            "make one with `pico data prepare` and name it: --set data.dataset.name=FOLDER",
        )
    try:
        return open_remote(f"hf://datasets/{name}", cache_gigabytes=cache_gigabytes)
    except PicoError as error:
        raise PicoError(
            f"data.dataset.name = {name!r}: there is no such folder, and not on the Hub either: {error.message}",
            "make one with `pico data prepare` and name it: --set data.dataset.name=FOLDER",
        ) from error


def open_data(config: DataConfig) -> TokenSource:
    """The tokens that the section `data` describes."""
    dataset = config.dataset
    if not dataset.mix:
        return open_source(dataset.name, dataset.options, dataset.cache_gigabytes)
    sources = {name: open_source(name, {}, dataset.cache_gigabytes) for name in dataset.mix}
    return MixedSource(sources, dataset.mix)


class MixedSource:
    """Several sources in fixed shares of rows: a `TokenSource` whose train split is all of them."""

    def __init__(self, sources: dict[str, TokenSource], weights: dict[str, float]) -> None:
        self.sources = sources
        self.weights = tuple(weights[name] for name in sources)
        self._first = next(iter(sources.values()))
        self._check_alike()

    @property
    def name(self) -> str:
        return " + ".join(f"{weight:g} {name}" for name, weight in zip(self.sources, self.weights, strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any source and with any share."""
        return content([[source.fingerprint, weight] for source, weight in zip(self.sources.values(), self.weights, strict=True)])

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifests of the sources; a mixture has no known entropy floor."""
        return {"mix": {name: source.manifest for name, source in self.sources.items()}}

    @property
    def tokenizer_file(self) -> Path | None:
        return self._first.tokenizer_file

    def split(self, name: str) -> ConcatenatedRows:
        """All rows of a split, source after source; the order of training is `order_of`."""
        return ConcatenatedRows([source.split(name) for source in self.sources.values()])

    def _check_alike(self) -> None:
        first_name = next(iter(self.sources))
        for name, source in self.sources.items():
            mine, first = source.split("train").row_length, self._first.split("train").row_length
            if mine != first:
                raise PicoError(
                    f"data.dataset.mix: rows of {name} have {mine} tokens, rows of {first_name} {first}",
                    "prepare all sources with one --max-seq-len",
                )
            if (source.manifest.get("tokenizer") or {}).get("sha256") != (self._first.manifest.get("tokenizer") or {}).get(
                "sha256"
            ):
                raise PicoError(
                    f"data.dataset.mix: {name} and {first_name} were prepared with different tokenizers",
                    "prepare all sources with one --tokenizer",
                )


class ConcatenatedRows:
    """Rows of several sources, counted through one after the other."""

    def __init__(self, parts: Sequence[TokenRows]) -> None:
        self._parts = list(parts)
        self.sizes = tuple(part.rows for part in parts)
        self._ends = numpy.cumsum(self.sizes, dtype=numpy.int64)
        self.rows = sum(self.sizes)
        self.row_length = parts[0].row_length
        self.fingerprint = content([part.fingerprint for part in parts])

    def read(self, rows: Rows) -> Rows:
        """Tokens of the rows asked for, in the order asked for."""
        tokens = numpy.empty((len(rows), self.row_length), dtype=numpy.int64)
        numbers = numpy.searchsorted(self._ends, rows, side="right")
        for number in numpy.unique(numbers):
            mine = numbers == number
            start = int(self._ends[number]) - self.sizes[number]
            tokens[mine] = self._parts[number].read(rows[mine] - start)
        return tokens


def order_of(source: TokenSource, *, shuffle: bool, seed: int) -> RowOrder:
    """The order in which a source's training rows are used."""
    if isinstance(source, MixedSource):
        return build_order(source.split("train").sizes, source.weights, shuffle=shuffle, seed=seed)
    rows = source.split("train").rows
    return PermutedOrder(rows, seed) if shuffle else IdentityOrder(rows)
