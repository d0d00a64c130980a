"""Evaluation data on disk or on the Hub: records with checked columns, and the hash that says which data a score belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from picolm.base.errors import PicoError, suggestion

ENDINGS = (".jsonl", ".json", ".parquet")
"""What can be read: JSON lines, a JSON list, parquet."""


class Record(NamedTuple):
    """One object of a data file, and where it stands."""

    values: dict[str, Any]
    place: str


def data_files(data: str, *, split: str = "", hub_config: str = "") -> list[Path]:
    """The files behind `data`: a file, a folder (or its subfolder or files of this split), else a Hub name, fetched now."""
    path = Path(data).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _files_in(path, split)
    if path.parent.is_dir():
        raise PicoError(f"data: there is no {path}", suggestion(path.name, [entry.name for entry in path.parent.iterdir()]))
    if len(path.parts) != 2 or data.startswith("."):
        raise PicoError(f"data: there is no {path}", "name a file, a folder or a Hub name `owner/name`")
    return fetch_from_hub(data, hub_config, split)


def _files_in(folder: Path, split: str) -> list[Path]:
    place = folder / split if split and (folder / split).is_dir() else folder
    files = sorted(entry for entry in place.iterdir() if entry.suffix in ENDINGS and entry.is_file())
    files = [file for file in files if split and file.stem.startswith(split)] or files
    if not files:
        raise PicoError(f"data: {place} holds no {' or '.join(ENDINGS)} files", "name a file, or a folder with such files")
    return files


def fetch_from_hub(name: str, config: str, split: str) -> list[Path]:
    """The parquet files of one split of a Hub data set, from the cache or the network."""
    from huggingface_hub import snapshot_download

    where = f"{config or 'default'}/{split}"
    for revision, pattern in (("refs/convert/parquet", f"{where}/*.parquet"), (None, f"*{split}*.parquet")):
        try:
            folder = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=[pattern])
        except Exception as error:  # the client raises several families; each means that there is no data
            raise PicoError(
                f"{name} is neither a local path nor to be had from the Hub: {_first_line(error)}",
                "name a local copy of the data, or leave this evaluation out of `evaluation.metrics`",
            ) from error
        files = sorted(Path(folder).rglob("*.parquet"))
        if files:
            return files
    raise PicoError(f"{name} on the Hub has no split `{split}` of configuration `{config or 'default'}`", "give `split`")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_records(path: Path) -> Iterator[Record]:
    """The objects in a file; PicoError if it is empty, damaged or of another sort."""
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise PicoError(f"data: {path} is none of {', '.join(readers)}")
    empty = True
    for record in readers[path.suffix](path):
        empty = False
        if not isinstance(record.values, dict):
            raise PicoError(f"data: {record.place} holds a {type(record.values).__name__}, not an object")
        yield record
    if empty:
        raise PicoError(f"data: {path} is empty", "it must hold at least one object")


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            yield Record(_parsed(line, f"{path}:{number}"), f"{path}:{number}")


def _read_json(path: Path) -> Iterator[Record]:
    content = _parsed(_text_of(path), str(path))
    if not isinstance(content, list):
        raise PicoError(f"data: {path} holds a {type(content).__name__}, not a list")
    for number, values in enumerate(content):
        yield Record(values, f"{path}[{number}]")


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches():
            for values in batch.to_pylist():
                yield Record(values, f"{path}, row {number}")
                number += 1
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PicoError(f"data: {path} is not a readable parquet file: {_first_line(error)}") from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PicoError(f"data: {path} is not UTF-8 text: {error}") from error


def _parsed(text: str, place: str) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except ValueError as error:
        raise PicoError(f"data: {place} is not JSON: {error}") from error


def text_of(record: Record, column: str) -> str:
    """A text column of a record; PicoError if it is missing or not text."""
    value = value_of(record, column)
    if not isinstance(value, str):
        raise PicoError(f"data: {record.place}: `{column}` is a {type(value).__name__}, not text")
    return value


def texts_of(record: Record, column: str) -> tuple[str, ...]:
    """A column that holds a list of texts."""
    value = value_of(record, column)
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise PicoError(f"data: {record.place}: `{column}` is not a list of texts")
    return tuple(value)


def number_of(record: Record, column: str) -> int:
    """A column that holds a whole number, possibly written as text."""
    value = value_of(record, column)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise PicoError(f"data: {record.place}: `{column}` = {value!r} is not a whole number")
    return value


def value_of(record: Record, column: str) -> Any:
    """A column of a record; PicoError with the nearest one if it is missing."""
    if column not in record.values:
        raise PicoError(f"data: {record.place} has no column `{column}`", suggestion(column, record.values))
    return record.values[column]


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over names and contents, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()
