"""`study.lock.json`: what was declared and resolved before the first run that counts. Reading it needs no torch.

Its hash is carried by every run. A change of what is locked makes a child version with the hash of its parent; the versions
before stay in `locks/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.manifest import content
from picolm.records.studydir import StudyDirectory
from picolm.study.config import StudyConfig, parse_study, substance

Phase = Literal["tuning", "confirm", "reserve", "control"]


class Locked(pydantic.BaseModel):
    """Frozen, nothing unknown."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LockedCell(Locked):
    """One place of the matrix variants x seeds, resolved to a configuration."""

    variant: str
    seed: int
    phase: Phase
    control: str = ""
    """Name of the positive control this is a run of; empty otherwise."""
    value: Any = None
    """Value of the tuned setting; null where nothing is tuned."""
    run: str
    """Name of the run folder. Places with the same content share one."""
    overrides: tuple[str, ...]
    """`key=value` on the base configuration."""
    config_hash: str
    """Hash of the settings that make the run what it is, as in its run.json."""
    content: str
    """Hash of the whole configuration, data and threads: what makes two runs the same."""


class LockedVariant(Locked):
    """A variant, resolved."""

    role: str
    changes: dict[str, tuple[Any, Any]]
    """Dotted key -> value of the baseline and of this variant, where they differ; seeds left out."""
    config: dict[str, Any]
    """Dotted key -> value, every setting, under the first confirmation seed; of a tuned setting the first of the grid."""


class StudyLock(Locked):
    """One version of a lock."""

    format: Literal["picolm.studylock/1"] = "picolm.studylock/1"
    study: str
    """Id of the study."""
    version: int
    parent: str | None
    """Hash of the version before; null for the first."""
    created: str
    mode: Literal["confirmatory", "exploratory"]
    mode_reason: str
    """Why the mode is exploratory, if the file says confirmatory; empty otherwise."""
    definition: str
    """The file of the study, seen from where it was locked."""
    declared: dict[str, Any]
    """The whole study file, every default written out."""
    base: dict[str, Any]
    """The base configuration as read."""
    base_name: str
    """File name of the base configuration."""
    variants: dict[str, LockedVariant]
    data: dict[str, dict[str, Any]]
    """Name of the data -> fingerprint, tokenizer, rows, as in run.json."""
    files: dict[str, str]
    """Other files the study reads (analyses, data of evaluations) -> SHA-256."""
    code: dict[str, Any]
    environment: dict[str, Any]
    cells: tuple[LockedCell, ...]
    hash: str = ""
    """SHA-256 over everything else."""

    def computed_hash(self) -> str:
        """The hash as it must be."""
        return content(self.model_dump(mode="json", exclude={"hash"}))

    @property
    def config(self) -> StudyConfig:
        """The study as locked."""
        return parse_study(self.declared, f"lock of {self.study}")

    def substance(self) -> dict[str, Any]:
        """What must not change without a child version: everything but time, place, version, code and machine."""
        kept = self.model_dump(mode="json", include={"variants", "data", "files", "cells"})
        return {**kept, "declared": substance(self.config)}


def read_lock(path: Path) -> StudyLock:
    """The lock in a file; PicoError if it is not there, or was changed by hand."""
    try:
        lock = StudyLock.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise PicoError(f"{path.parent} is not locked: it has no {path.name}", f"pico study lock {path.parent}") from error
    except (ValueError, pydantic.ValidationError) as error:
        raise PicoError(f"{path} is damaged: {str(error).splitlines()[0]}", "restore it from its copy in `locks`") from error
    if lock.hash != lock.computed_hash():
        raise PicoError(f"{path} was changed after it was written: its hash is not that of its content", "restore it from a copy")
    return lock


def find_lock(directory: StudyDirectory) -> StudyLock | None:
    """The current lock of a study, None if it was never locked."""
    return read_lock(directory.lock_file) if directory.lock_file.exists() else None


def write_lock(directory: StudyDirectory, lock: StudyLock) -> StudyLock:
    """Write a version with its hash: under its number first, then as the current one."""
    sealed = lock.model_copy(update={"hash": lock.computed_hash()})
    copy = directory.lock_version(sealed.version)
    if copy.exists() and json.loads(copy.read_text(encoding="utf-8"))["hash"] != sealed.hash:
        raise PicoError(
            f"{copy} exists: version {sealed.version} was locked before", "restore study.lock.json from the newest in `locks`"
        )
    durable.write_json(copy, sealed.model_dump(mode="json"))
    durable.write_json(directory.lock_file, sealed.model_dump(mode="json"))
    return sealed
