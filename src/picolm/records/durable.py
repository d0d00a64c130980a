"""Write a file or a folder so that after a kill or a power cut it is there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_MARK = ".tmp-"
"""Part of the name of everything unfinished; readers pass such names over, writers may delete old ones."""


def temporary_sibling(path: Path) -> Path:
    """A fresh unused name beside `path`, on the same file system."""
    return path.parent / f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{secrets.token_hex(4)}"


def flush_file(path: Path) -> None:
    """Return once the file's content is on the disk."""
    with path.open("r+b" if os.name == "nt" else "rb") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Return once the folder's list of names is on the disk (where the system can do that)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        temporary.write_bytes(content)
        flush_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by readable JSON, whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill the folder yielded; on success it becomes `path` in one step, on any error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        flush_tree(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(path.parent)


def remove_folder(path: Path, *, aside: Path) -> None:
    """Make a folder vanish in one step: renamed to an unfinished name beside `aside`, then deleted."""
    temporary = temporary_sibling(aside)
    path.rename(temporary)
    flush_folder(path.parent)
    shutil.rmtree(temporary)


def remove_leftovers(folder: Path) -> None:
    """Delete everything unfinished directly in a folder. Only for one who knows that nobody is writing there."""
    for entry in sorted(folder.glob(f".*{TEMPORARY_MARK}*")):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def flush_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and `folder` itself. A folder that cannot be listed is an OSError."""
    for root, _, files in os.walk(folder, topdown=False, onerror=_raise):
        for name in files:
            flush_file(Path(root, name))
        flush_folder(Path(root))


def list_below(folder: Path) -> list[Path]:
    """Every file and every link below `folder`. A folder that cannot be listed is an OSError, never an omission."""
    found = []
    for root, folders, files in os.walk(folder, onerror=_raise):
        found += [Path(root, name) for name in files]
        found += [path for name in folders if (path := Path(root, name)).is_symlink()]
    return found


def _raise(error: OSError) -> None:
    raise error
