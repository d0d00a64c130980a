"""The folder of a study: the declaration, its lock, the runs, what was judged and reported."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from picolm.base.errors import PicoError, suggestion
from picolm.records.rundir import RunDirectory

STUDY_FILE = "study.yaml"
LOCK_FILE = "study.lock.json"


@dataclass(frozen=True)
class StudyDirectory:
    """Paths of one study. Nothing is created by asking for a path."""

    path: Path
    """Where results go: lock, runs, judgement, report."""
    definition: Path
    """The file that declares the study."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def lock_file(self) -> Path:
        """`study.lock.json`: what was declared and resolved, with hashes, before the first run that counts."""
        return self.path / LOCK_FILE

    def lock_version(self, version: int) -> Path:
        """A copy of each version of the lock: a new one never replaces it."""
        return self.path / "locks" / f"version-{version}.json"

    @property
    def tuning_file(self) -> Path:
        """Which value was picked for each variant, and from what."""
        return self.path / "tuning.json"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.runs / name)

    def receipt(self, run: str) -> Path:
        """How a run ended, and the hashes of what it left."""
        return self.path / "receipts" / f"{run}.json"

    def receipts(self) -> list[Path]:
        return sorted((self.path / "receipts").glob("*.json"))

    def job(self, name: str) -> Path:
        """What a worker was asked to do."""
        return self.path / "jobs" / f"{name}.json"

    def job_log(self, name: str) -> Path:
        """What a worker said."""
        return self.path / "jobs" / f"{name}.log"

    def job_events(self, name: str) -> Path:
        """How far a worker is: one JSON object per line."""
        return self.path / "jobs" / f"{name}.jsonl"

    @property
    def running_file(self) -> Path:
        """There while a process carries the study out."""
        return self.path / "study.running"

    @property
    def judgement_file(self) -> Path:
        return self.path / "judgement.json"

    @property
    def report_page(self) -> Path:
        return self.path / "report.html"

    @property
    def report_text(self) -> Path:
        return self.path / "report.md"

    @property
    def runs_page(self) -> Path:
        """The page about the runs, which `pico report` writes; `report_page` is about what was judged."""
        return self.path / "runs.html"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def beside_definition(self, reference: str) -> Path:
        """A file that the study names relative to its own file."""
        return self.definition.parent / reference


def open_study_directory(path: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> StudyDirectory:
    """The study at `path`: its file, its folder, or a folder of results. `out`: where results are instead of beside the file."""
    place = Path(path)
    if place.is_file():
        return StudyDirectory(Path(out) if out is not None else place.parent, place)
    if (place / STUDY_FILE).is_file():
        return StudyDirectory(Path(out) if out is not None else place, place / STUDY_FILE)
    if (place / LOCK_FILE).is_file():
        return StudyDirectory(place, _definition_of_results(place / LOCK_FILE))
    raise PicoError(f"{place} is not a study: it has no {STUDY_FILE}", _near_studies(place))


def list_studies(folder: Path) -> list[StudyDirectory]:
    """The studies directly below a folder, by name."""
    if not folder.is_dir():
        return []
    return [open_study_directory(entry) for entry in sorted(folder.iterdir()) if (entry / STUDY_FILE).is_file()]


def _definition_of_results(lock_file: Path) -> Path:
    try:
        return Path(json.loads(lock_file.read_text(encoding="utf-8"))["definition"])
    except (ValueError, KeyError, TypeError) as error:
        raise PicoError(f"{lock_file} is damaged: {error}", "restore it from a copy in `locks`") from error


def _near_studies(place: Path) -> str:
    names = [study.definition.parent.name for study in list_studies(place.parent)]
    return suggestion(place.name, names) if names else f"write one: docs/guides/studies.md; the file is called {STUDY_FILE}"
