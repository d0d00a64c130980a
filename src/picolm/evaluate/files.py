"""Evaluation data on disk: JSONL files with checked columns, and the hash that says which data a score belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError, suggestion


def data_files(path: Path, endings: Sequence[str] = (".jsonl",)) -> list[Path]:
    """The file itself, or the files with these endings directly in a folder, by name; PicoError if there are none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise PicoError(f"data: there is no {path}", suggestion(path.name, names))
    files = sorted(entry for entry in path.iterdir() if entry.suffix in endings and entry.is_file())
    if not files:
        raise PicoError(f"data: {path} holds no {' or '.join(endings)} files", "name a file, or a folder with such files")
    return files


def read_jsonl(path: Path, columns: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, each with these columns of these types; PicoError names file, line and column."""
    empty = True
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(_lines(file, path), start=1):
            if not line.strip():
                continue
            empty = False
            yield _checked(_parsed(line, path, number), columns, f"{path}:{number}")
    if empty:
        raise PicoError(f"data: {path} is empty", "each line must hold one JSON object")


def _lines(file: Any, path: Path) -> Iterator[str]:
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise PicoError(f"data: {path} is not UTF-8 text: {error}") from error


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise PicoError(f"data: {path}:{number} is not JSON: {error}", "each line must hold one JSON object") from error


def _checked(record: Any, columns: Mapping[str, type], place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise PicoError(f"data: {place} holds a {type(record).__name__}, not an object")
    for column, kind in columns.items():
        if column not in record:
            raise PicoError(f"data: {place} has no column `{column}`", suggestion(column, record))
        if not isinstance(record[column], kind):
            found = type(record[column]).__name__
            raise PicoError(f"data: {place}: `{column}` is a {found}, not a {kind.__name__}")
    return record


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over names and contents, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()
