"""`index.json`: what a published commit holds, and the whole series up to it. With the Hub's own hashes it proves the series."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.hub.names import check_paths

INDEX_NAME = "index.json"
FORMAT = "picolm.index/1"
LARGEST_INDEX_BYTES = 64 << 20


@dataclass(frozen=True)
class Published:
    """One step of a published series."""

    step: int
    tokens: int | None
    tag: str
    manifest: str
    """SHA-256 of the checkpoint's manifest."""
    parent: str | None
    """SHA-256 of the manifest before it."""


@dataclass(frozen=True)
class FileHash:
    """A file of a commit: `git` is what the Hub lists for a small file, `sha256` for a large one."""

    bytes: int
    sha256: str
    git: str


@dataclass(frozen=True)
class Index:
    """The content of `index.json`."""

    run: str
    series: tuple[Published, ...]
    """Ascending by step; the last one is the step of this commit."""
    files: dict[str, FileHash] = field(default_factory=dict)
    """Every file of the checkpoint in this commit."""
    every_checkpoint: bool = True
    """Whether the series holds each checkpoint of the run, so that each one's parent is the one before it."""

    def to_bytes(self) -> bytes:
        """As stored: the same index always gives the same bytes."""
        content = {"format": FORMAT, **asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def hash_content(content: bytes | Path) -> FileHash:
    """Size, SHA-256 and git's name of a file."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    plain, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    if isinstance(content, bytes):
        plain.update(content)
        git.update(content)
    else:
        with content.open("rb") as file:
            while piece := file.read(1 << 20):
                plain.update(piece)
                git.update(piece)
    return FileHash(size, plain.hexdigest(), git.hexdigest())


def parse_index(content: bytes, source: str) -> Index:
    """The index in `content`; PicoError if it is not one, or names what may not be written."""
    try:
        read = json.loads(content)
        if read.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        files = {str(path): FileHash(**_checked(record, FILE_TYPES)) for path, record in read["files"].items()}
        series = tuple(Published(**_checked(row, ROW_TYPES)) for row in read["series"])
        index = Index(str(read["run"]), series, files, read["every_checkpoint"] is True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PicoError(f"{source}: {INDEX_NAME} is damaged: {str(error)[:200]}") from error
    check_paths(list(index.files), f"{source}: {INDEX_NAME}")
    return index


FILE_TYPES: dict[str, Any] = {"bytes": int, "sha256": str, "git": str}
ROW_TYPES: dict[str, Any] = {"step": int, "tokens": (int, type(None)), "tag": str, "manifest": str, "parent": (str, type(None))}


def _checked(record: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    if set(record) != set(types):
        raise ValueError(f"fields {sorted(record)} instead of {sorted(types)}")
    for name, kind in types.items():
        if not isinstance(record[name], kind) or isinstance(record[name], bool):
            raise ValueError(f"{name} = {record[name]!r:.80}")
    return record
