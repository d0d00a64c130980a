"""A manifest for token shards made elsewhere, such as pretokenized-dolma: here or behind a URL, read as they lie.

Row counts come from the parquet footers and hashes from the file store where it knows them; the content of a shard is checked
when it is decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.parquet import check_schema
from picolm.data.patience import patiently
from picolm.data.remote import CHUNK_BYTES, is_url
from picolm.data.sources import PreparedData, open_prepared
from picolm.data.tokenizer import TextTokenizer
from picolm.records import durable
from picolm.records.prepared import COLUMN, PreparedFolder, ShardRecord, write_manifest

CONNECTIONS = 16
VAL_NAMES = ("val", "valid", "validation", "dev")
LEFT_OUT_NAMES = ("test",)


def index_shards(
    place: str, *, out: Path | None = None, tokenizer: TextTokenizer | None = None, vocab_size: int | None = None
) -> PreparedData:
    """Write a manifest for the parquet shards at `place`: into `out`, or into the folder itself."""
    if out is None and is_url(place):
        raise PicoError(f"{place} cannot be written to", "name a folder for the manifest: --out FOLDER")
    target = PreparedFolder(out or Path(place))
    if target.manifest_file.exists():
        raise PicoError(f"{target.path} has a manifest already", "choose another --out, or delete it")
    if tokenizer is None and vocab_size is None:
        raise PicoError("the size of the vocabulary is not known", "name the tokenizer with --tokenizer, or give --vocab-size")
    base = place if is_url(place) else str(Path(place).resolve())
    shards = _Shards(base)
    names = shards.names()
    if not names:
        raise PicoError(f"{place} holds no parquet files", "name the folder that holds the token shards")
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        records = list(pool.map(shards.record, names))
    splits: dict[str, Any] = {}
    for name, record in zip(names, records, strict=True):
        split = _split_of(name)
        if split is not None and record.rows:
            facts = splits.setdefault(split, {"rows": 0, "shards": []})
            facts["rows"] += record.rows
            facts["shards"].append(vars(record))
    manifest = _describe(splits, shards.row_length(names[0]), tokenizer, vocab_size, place)
    if is_url(place) or out is not None:
        manifest["base"] = base
    target.path.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        durable.write_bytes(target.tokenizer_file, tokenizer.file.read_bytes())
        durable.write_json(target.tokenizer_settings, {"eos_token": tokenizer.end_of_text})
    write_manifest(target, manifest)
    return open_prepared(target.path)


def _describe(
    splits: dict[str, Any], row_length: int, tokenizer: TextTokenizer | None, vocab_size: int | None, place: str
) -> dict[str, Any]:
    if "train" not in splits:
        raise PicoError(
            f"{place} has no training shards", f"files below {', '.join((*VAL_NAMES, *LEFT_OUT_NAMES))} are not taken"
        )
    size = vocab_size or (0 if tokenizer is None else tokenizer.vocab_size)
    described = None
    if tokenizer is not None:
        described = {
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "end_of_text": tokenizer.end_of_text,
            "end_of_text_id": tokenizer.end_of_text_id,
        }
    for facts in splits.values():
        facts["tokens"] = facts["rows"] * row_length
    return {
        "row_length": row_length,
        "vocab_size": size,
        "padded_vocab_size": -(-size // 128) * 128,
        "tokenizer": described,
        "splits": splits,
        "indexed_from": place,
    }


def _split_of(name: str) -> str | None:
    words = {word for part in Path(name).with_suffix("").parts for word in part.lower().replace("_", "-").split("-")}
    if words & set(LEFT_OUT_NAMES):
        return None
    return "val" if words & set(VAL_NAMES) else "train"


class _Shards:
    """Parquet files below a folder or URL."""

    def __init__(self, base: str) -> None:
        import fsspec

        self._filesystem, self._root = fsspec.core.url_to_fs(base)

    def names(self) -> list[str]:
        """Paths of all parquet files relative to the folder, sorted; hidden ones left out."""
        found = self._filesystem.find(self._root)
        root = self._root.rstrip("/") + "/"
        names = [path.removeprefix(root) for path in found if path.endswith(".parquet")]
        return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))

    def record(self, name: str) -> ShardRecord:
        """Rows from the footer; hash from the file store, else from the bytes."""
        path = f"{self._root.rstrip('/')}/{name}"
        information = patiently(path, lambda: self._filesystem.info(path))
        rows = patiently(path, lambda: self._rows(path))
        stored = information.get("lfs") or {}
        sha256 = stored.get("sha256") if isinstance(stored, dict) else getattr(stored, "sha256", None)
        digest = sha256 or patiently(path, lambda: self._hash(path))
        return ShardRecord(name, rows, int(information["size"]), digest)

    def row_length(self, name: str) -> int:
        """Tokens in the first row of a shard."""
        import pyarrow.parquet

        with self._filesystem.open(f"{self._root.rstrip('/')}/{name}", "rb") as file:
            batch = next(pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1, columns=[COLUMN]))
        return len(batch.column(0)[0])

    def _rows(self, path: str) -> int:
        import pyarrow
        import pyarrow.parquet

        with self._filesystem.open(path, "rb") as file:
            try:
                parquet = pyarrow.parquet.ParquetFile(file)
            except pyarrow.ArrowInvalid as error:
                raise PicoError(f"{path} cannot be read as parquet: {error}", "the file is truncated or not parquet") from error
            check_schema(parquet.schema_arrow, path)
            return int(parquet.metadata.num_rows)

    def _hash(self, path: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._chunks(path):
            digest.update(chunk)
        return digest.hexdigest()

    def _chunks(self, path: str) -> Iterator[bytes]:
        with self._filesystem.open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def fetch_all(data: PreparedData, splits: list[str]) -> Iterator[float]:
    """Download and decode every shard of some splits; yields the share done."""
    rows = [data.split(split) for split in splits]
    total = sum(part.rows for part in rows)
    done = 0
    for part in rows:
        for end in part.ends:
            part.read(numpy.array([int(end) - 1]))
            yield (done + int(end)) / total
        done += part.rows
