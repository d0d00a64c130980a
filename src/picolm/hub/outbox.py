"""The queue on disk: where a run is published, which checkpoints wait, what the uploader is doing.

A checkpoint is queued by being sealed: the entry says how far its publication is, and is written again if it is lost.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.hub.names import branch_of, check_collection, check_repo_id
from picolm.records import durable
from picolm.records.manifest import PARTS, manifest_hash
from picolm.records.rundir import RunDirectory

FORMAT = "picolm.outbox/1"


@dataclass(frozen=True)
class Destination:
    """Where and what of a run is published."""

    repo_id: str
    collection_slug: str | None = None
    private: bool = True
    """How the repository is made if it does not exist; one that exists stays as it is."""
    parts: tuple[str, ...] = PARTS
    """Parts of a checkpoint that are published."""
    every_checkpoint: bool = True
    """Whether each sealed checkpoint is published, or only those queued by name."""
    results: str = ""
    """Hash of the run's results (log, scores, card) as last published."""


@dataclass(frozen=True)
class Entry:
    """One checkpoint on its way."""

    step: int
    manifest: str
    """SHA-256 of its manifest."""
    commit: str | None = None
    """Where it is published; None while it waits."""


@dataclass(frozen=True)
class Outbox:
    """The outbox of one run."""

    run: RunDirectory

    def destination(self) -> Destination | None:
        """Where the run is published; None if nowhere."""
        path = self.run.outbox_destination
        if not path.is_file():
            return None
        content = _read(path)
        try:
            found = Destination(**{**content, "parts": tuple(content["parts"])})
        except (TypeError, KeyError) as error:
            raise PicoError(f"{path} is damaged: {error}", "delete it and name the repository again: `pico hub push`") from error
        return check_destination(found, str(path))

    def require_destination(self) -> Destination:
        """Where the run is published; PicoError if nowhere."""
        found = self.destination()
        if found is None:
            raise PicoError(f"{self.run.path} is published nowhere", f"pico hub push {self.run.path} --to OWNER/NAME")
        return found

    def address(self, destination: Destination) -> None:
        """Say where the run is published. Another repository than before: its checkpoints begin to wait again."""
        check_destination(destination, "destination")
        branch_of(self.run.name)
        before = self.destination()
        if before is not None and before.repo_id != destination.repo_id:
            for entry in self.entries():
                self._write(Entry(entry.step, entry.manifest))
        _write(self.run.outbox_destination, asdict(destination))

    def queue(self, step: int) -> None:
        """Note that a sealed checkpoint waits. Touches the disk only."""
        if not self.run.outbox_entry(step).is_file():
            self._write(Entry(step, manifest_hash(self.run.checkpoint(step))))

    def queue_sealed(self) -> None:
        """Queue what was sealed and never noted: the process may have been killed in between."""
        destination = self.destination()
        if destination is not None and destination.every_checkpoint:
            for step in self.run.steps():
                self.queue(step)

    def entries(self) -> list[Entry]:
        """All queued checkpoints, by step."""
        found = []
        for path in self.run.outbox.glob("step_*.json"):
            content = _read(path)
            try:
                found.append(Entry(**content))
            except TypeError as error:
                raise PicoError(f"{path} is damaged: {error}", "delete it: the checkpoint is queued again") from error
        return sorted(found, key=lambda entry: entry.step)

    def waiting(self) -> list[Entry]:
        """Queued and not yet published, by step."""
        return [entry for entry in self.entries() if entry.commit is None]

    def mark_published(self, step: int, manifest: str, commit: str) -> None:
        """Note where a checkpoint is published."""
        self._write(Entry(step, manifest, commit))

    def mark_results(self, results: str) -> None:
        """Note which results are published."""
        destination = self.require_destination()
        _write(self.run.outbox_destination, {**asdict(destination), "results": results})

    def tell(self, state: str, why: str = "") -> None:
        """Say what the uploader is doing: `working`, `waiting`, `idle` or `stopped`."""
        _write(self.run.outbox_status, {"state": state, "why": why})

    def status(self) -> dict[str, Any]:
        """What the uploader said last; empty if it never ran."""
        return _read(self.run.outbox_status) if self.run.outbox_status.is_file() else {}

    def _write(self, entry: Entry) -> None:
        _write(self.run.outbox_entry(entry.step), asdict(entry))


def check_destination(destination: Destination, source: str) -> Destination:
    """The destination, if all its names are sound."""
    check_repo_id(destination.repo_id, f"{source}: repo_id")
    if destination.collection_slug is not None:
        check_collection(destination.collection_slug)
    unknown = [part for part in destination.parts if part not in PARTS]
    if unknown:
        raise PicoError(f"{source}: {unknown[0]!r} is not a part of a checkpoint", f"parts are {', '.join(PARTS)}")
    return destination


def _write(path: Path, content: dict[str, Any]) -> None:
    durable.write_json(path, {"format": FORMAT, **content})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise PicoError(f"{path} is damaged: {error}", "delete it: `pico hub sync` asks the Hub what is there") from error
    result: dict[str, Any] = content
    return result
