"""Where snapshots come from: a run folder of ours or of the original trainer, seen the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from picolm.base.errors import PicoError
from picolm.records.legacy import GRADIENT_NOTE, LegacyRun, is_legacy_run
from picolm.records.manifest import Manifest, file_problems, read_manifest, verify
from picolm.records.rundir import CheckpointFolder, RunDirectory, open_run_directory
from picolm.records.snapshot import Snapshot, open_snapshot
from picolm.records.source import read_source


@dataclass(frozen=True)
class Step:
    """One step of a run, as far as measuring needs it."""

    run: str
    step: int
    snapshot: Callable[[str], Snapshot]
    """Split -> snapshot."""
    hashes: Callable[[str, tuple[str, ...]], list[str]]
    """Split and data types -> hashes of what they are read from."""
    verify: Callable[[tuple[str, ...]], None]
    """Data types -> PicoError if a file they are read from is damaged."""
    variant: str = ""
    seed: int | None = None
    tokens: int | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    """Stored data type -> what a reader of values made of it must know."""


class Source(Protocol):
    """A run that can be analysed."""

    @property
    def name(self) -> str: ...

    @property
    def last_step(self) -> int | None:
        """Step at which the run is finished, where that is known."""
        ...

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        ...

    def open_step(self, number: int) -> Step:
        """One of them."""
        ...

    def analysis(self, name: str) -> Path:
        """Folder of the rows of an analysis."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A run folder of ours."""

    run: RunDirectory

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def last_step(self) -> int | None:
        planned = self.run.identity().get("max_steps")
        return int(planned) if isinstance(planned, int) else None

    def steps(self) -> list[int]:
        return self.run.steps()

    def analysis(self, name: str) -> Path:
        return self.run.analysis(name)

    def open_step(self, number: int) -> Step:
        identity = self.run.identity()
        folder = self.run.checkpoint(number)
        manifest = read_manifest(folder)
        return Step(
            run=self.run.name,
            step=number,
            snapshot=cache(lambda split: open_snapshot(folder, number, split or "val")),
            hashes=lambda split, data_types: stored_hashes(manifest, split, data_types),
            verify=cache(lambda data_types: _verify(folder, data_types)),
            variant=str(identity.get("variant") or ""),
            seed=_seed(identity),
            tokens=manifest.tokens,
        )


@dataclass(frozen=True)
class LegacySource:
    """A run folder of the original trainer."""

    run: LegacyRun

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def last_step(self) -> int | None:
        return None

    def steps(self) -> list[int]:
        return self.run.steps()

    def analysis(self, name: str) -> Path:
        return RunDirectory(self.run.path).analysis(name)

    def open_step(self, number: int) -> Step:
        run = self.run
        return Step(
            run=run.name,
            step=number,
            snapshot=cache(lambda split: run.snapshot(number, split or "val")),
            hashes=cache(lambda split, data_types: run.hashes(number, split or "val", data_types)),
            verify=lambda data_types: None,  # there is no manifest to verify against
            tokens=run.tokens(number),
            notes={"gradients": GRADIENT_NOTE},
        )


def open_source(path: Path) -> Source:
    """The run in a folder; PicoError if there is none."""
    if is_legacy_run(path):
        return LegacySource(LegacyRun(path))
    return FolderSource(open_run_directory(path))


def stored_hashes(manifest: Manifest, split: str, data_types: tuple[str, ...]) -> list[str]:
    """SHA-256 of the files that tensors of these types are read from; `absent` where there is none."""
    inside = CheckpointFolder(Path())
    files = {name: record.sha256 for records in manifest.parts.values() for name, record in records.items()}
    wanted = [inside.layout, inside.dynamics_info(split)] if split else [inside.layout]
    weights = inside.weights if inside.weights.as_posix() in files else inside.source  # which holds their hashes
    for data_type in data_types:
        wanted.append(weights if data_type == "weights" else inside.dynamics_tensors(split, data_type))
    return [files.get(path.as_posix(), "absent") for path in wanted]


def _verify(folder: Path, data_types: tuple[str, ...]) -> None:
    sealed = verify(folder, parts=parts_holding(data_types))
    layout = CheckpointFolder(Path()).layout.as_posix()
    record = sealed.parts.get("weights", {}).get(layout)
    problems = [] if record is None else file_problems(folder, layout, record)
    if problems:
        raise PicoError(f"{folder}: {problems[0]}", "restore the file from a copy")
    source = read_source(folder) if "weights" in data_types else None
    if source is not None:
        source.verify()


def parts_holding(data_types: Iterable[str]) -> tuple[str, ...]:
    """Parts of a checkpoint that tensors of these types are read from."""
    weights = ("weights",) if "weights" in data_types else ()
    return weights + (("learning_dynamics",) if set(data_types) - {"weights"} else ())


def _seed(identity: dict[str, Any]) -> int | None:
    seed = identity.get("seed")
    return int(seed) if isinstance(seed, int) else None
