"""Opens what `data.dataset` names: a prepared folder, a mixture of several, a source of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import DATA_SOURCES, DataConfig, Rows, TokenRows, TokenSource, open_source
from picolm.data.order import IdentityOrder, PermutedOrder, RowOrder, build_order
from picolm.data.shards import ShardedRows, ShardFiles, cache_folder
from picolm.records.manifest import content
from picolm.records.prepared import PreparedFolder, shards_of


@dataclass(frozen=True)
class PreparedData:
    """A folder made by `pico data prepare`: a `TokenSource`."""

    folder: PreparedFolder
    manifest: dict[str, Any]
    files: ShardFiles
    cache: Path

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def name(self) -> str:
        return str(self.folder.path)

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
        return ShardedRows(
            shards_of(self.manifest, name, str(self.path)),
            files=self.files,
            row_length=self.row_length,
            vocab_size=int(self.manifest["vocab_size"]),
            cache=self.cache,
            name=f"{self.path} ({name})",
        )


def open_prepared(path: Path | str) -> PreparedData:
    """The prepared data in a folder; PicoError if it is missing, unfinished or of another format."""
    folder = PreparedFolder(Path(path))
    manifest = folder.manifest()
    return PreparedData(folder, manifest, ShardFiles(folder), cache_folder(folder))


@DATA_SOURCES.register("prepared")
def prepared(*, path: str) -> PreparedData:
    """A folder made by `pico data prepare`."""
    return open_prepared(path)


def open_folder_or_hub(name: str) -> TokenSource:
    """The prepared folder `name`; PicoError says how to get one."""
    if not Path(name).exists():
        raise PicoError(
            f"data.dataset.name = {name!r}: there is no such folder",
            "make one with `pico data prepare` and name it: --set data.dataset.name=FOLDER",
        )
    return open_prepared(name)


def open_data(config: DataConfig) -> TokenSource:
    """The tokens that the section `data` describes."""
    dataset = config.dataset
    if not dataset.mix:
        return open_source(dataset.name, dataset.options)
    sources = {name: open_source(name, {}) for name in dataset.mix}
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
