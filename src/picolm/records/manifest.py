"""The manifest of a sealed folder: size and SHA-256 of every file, by part. It is written last; without it nothing exists."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.pulled import PULLED_NAME, Pulled, read_pulled

MANIFEST_NAME = "manifest.json"
FORMAT = "picolm.manifest/1"
PARTS = ("weights", "training_state", "learning_dynamics")


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds: `parts[part][relative path]` and the facts that place it in its run."""

    step: int
    tokens: int | None
    """Training tokens seen; None where a captured series does not tell."""
    parent: str | None
    """SHA-256 of the manifest of the checkpoint before this one; None for the first."""
    config_hash: str
    data_fingerprint: str | None = None
    parts: dict[str, dict[str, FileRecord]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all listed files."""
        return sum(record.bytes for files in self.parts.values() for record in files.values())


def part_of(relative_path: str) -> str:
    """Which part a file of a checkpoint belongs to: decided by its folder."""
    first = PurePosixPath(relative_path).parts[0]
    return first if first in PARTS else "weights"


def hash_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRecord(file.tell(), digest.hexdigest())


def list_files(folder: Path) -> list[str]:
    """Relative paths, with forward slashes, of every file below a folder, except its manifest and the note of a pull."""
    names = (path.relative_to(folder).as_posix() for path in durable.list_below(folder))
    return sorted(name for name in names if name not in (MANIFEST_NAME, PULLED_NAME))


@contextmanager
def sealed_folder(path: Path, manifest: Manifest) -> Iterator[Path]:
    """Fill the folder yielded; it becomes `path`, with `manifest` completed by the hashes, whole or not at all."""
    if path.exists():
        if (path / MANIFEST_NAME).exists():
            raise PicoError(f"{path} is sealed already", "a checkpoint is never rewritten; use another run name")
        shutil.rmtree(path)
    with durable.new_folder(path) as folder:
        yield folder
        parts: dict[str, dict[str, FileRecord]] = {}
        for name in list_files(folder):
            parts.setdefault(part_of(name), {})[name] = hash_file(folder / name)
        durable.flush_tree(folder)
        write_manifest(folder, Manifest(**{**vars(manifest), "parts": parts}))
        share_with_readers(folder)


def share_with_readers(folder: Path) -> None:
    """Give every file the access that the manifest got from the user's umask: some writers leave theirs to the owner only."""
    mode = stat.S_IMODE((folder / MANIFEST_NAME).stat().st_mode)
    for name in list_files(folder):
        (folder / name).chmod(mode)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a folder. Its `seal` is the hash of all else in it, so that a change of its own shows."""
    facts = {"format": FORMAT, **asdict(manifest)}
    durable.write_json(folder / MANIFEST_NAME, {**facts, "seal": content(facts)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sealed folder; PicoError if it is missing or not ours."""
    path = folder / MANIFEST_NAME
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        seal = facts.pop("seal")
        sealed = content(facts)
        if facts.pop("format") != FORMAT:
            raise PicoError(f"{path} has another format than {FORMAT}", "it was written by another version of picolm")
        parts = {
            part: {_inside(name, path): FileRecord(**record) for name, record in files.items()}
            for part, files in facts.pop("parts").items()
        }
        manifest = Manifest(**facts, parts=parts)
    except FileNotFoundError as error:
        raise PicoError(f"{folder} has no {MANIFEST_NAME}", "a checkpoint without it was never finished") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PicoError(f"{path} is damaged: {error}", "restore the file, or delete the checkpoint folder") from error
    if seal != sealed:
        raise PicoError(f"{path} has changed since it was sealed", "restore the file, or delete the checkpoint folder")
    return manifest


def manifest_hash(folder: Path) -> str:
    """SHA-256 of the manifest itself: the checkpoint's identity."""
    return hash_file(folder / MANIFEST_NAME).sha256


def _inside(name: str, source: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise PicoError(f"{source} names a file outside its folder: {name!r}")
    return name


def find_damage(folder: Path, manifest: Manifest, parts: Iterable[str] | None = None, *, partial: bool = False) -> list[str]:
    """One sentence for each file that is missing, changed or not listed. A part removed as a whole is not damage.

    `partial`: neither is a file that was knowingly not pulled.
    """
    chosen = [part for part in manifest.parts if parts is None or part in set(parts)]
    pulled = read_pulled(folder) or Pulled("", ())
    problems = [] if step_of(folder) in (None, manifest.step) else [f"this is the checkpoint of step {manifest.step}, misplaced"]
    for part in chosen:
        if part_removed(folder, manifest, part):
            continue
        for name, record in manifest.parts[part].items():
            not_pulled = name in pulled.absent and not (folder / name).exists()
            if not not_pulled:
                problems += file_problems(folder, name, record)
            elif not partial:
                problems.append(f"{name} was not pulled from {pulled.source}")
    listed = {name for files in manifest.parts.values() for name in files}
    if parts is None:
        problems += [f"{name} is not in the manifest" for name in list_files(folder) if name not in listed]
    return problems


def part_removed(folder: Path, manifest: Manifest, part: str) -> bool:
    """Whether retention removed this part: its files are listed and its folder is gone. Weights are never removed."""
    return part != "weights" and part in manifest.parts and not (folder / part).exists()


def file_problems(folder: Path, name: str, record: FileRecord) -> list[str]:
    """A sentence if a file is not the one recorded."""
    path = folder / name
    if path.is_symlink():
        return [f"{name} is a symbolic link"]
    if not path.is_file():
        return [f"{name} is missing"]
    size = path.stat().st_size
    if size != record.bytes:
        return [f"{name} has {size:,} bytes instead of {record.bytes:,}"]
    if hash_file(path).sha256 != record.sha256:
        return [f"{name} has changed: its SHA-256 is not that of the manifest"]
    return []


def verify(folder: Path, parts: Iterable[str] | None = None, *, partial: bool = False) -> Manifest:
    """The manifest, once every file of the chosen parts matches it; PicoError names the first file that does not.

    `partial`: files that were knowingly not pulled may be absent.
    """
    manifest = read_manifest(folder)
    problems = find_damage(folder, manifest, parts, partial=partial)
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        pulled = read_pulled(folder)
        hint = "restore the file from a copy, or delete this checkpoint to use an earlier one"
        if pulled is not None and "was not pulled" in problems[0]:
            hint = f"pico hub pull {pulled.source} --steps {manifest.step} --out {folder.parent.parent}"
        raise PicoError(f"{folder}: {problems[0]}{more}", hint)
    return manifest


def sealed_steps(checkpoints: Path) -> list[int]:
    """Steps whose folder `step_<N>` holds a manifest, ascending."""
    if not checkpoints.is_dir():
        return []
    steps = []
    for entry in os.scandir(checkpoints):
        step = step_of(Path(entry.path))
        if step is not None and Path(entry.path, MANIFEST_NAME).is_file():
            steps.append(step)
    return sorted(steps)


def step_of(folder: Path) -> int | None:
    """N of a folder named `step_<N>`; None for another name."""
    number = folder.name.removeprefix("step_")
    return int(number) if number != folder.name and number.isdecimal() else None


def content(value: Any) -> str:
    """SHA-256 of any JSON value in canonical form: the fingerprint of a configuration, a data set, a piece of code."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
