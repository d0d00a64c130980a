"""What is published with a step: the sealed checkpoint as it is, the run's records up to that step, and the index."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from picolm.hub.card import CURVE_NAME, draw_curve, write_card
from picolm.hub.names import check_paths, tag_of
from picolm.hub.outbox import Destination
from picolm.hub.secrecy import without_places
from picolm.hub.series import INDEX_NAME, Index, Published, hash_content
from picolm.records import trainlog
from picolm.records.manifest import MANIFEST_NAME, Manifest, manifest_hash, part_removed, verify
from picolm.records.rundir import RunDirectory

CARD_NAME = "README.md"
KEPT_NAMES = (".gitattributes",)
"""Files of a repository that a commit leaves as they are."""


@dataclass(frozen=True)
class Content:
    """All files of one commit: path in the repository -> local file or text."""

    step: int
    row: Published
    files: dict[str, bytes | Path]

    @property
    def bytes(self) -> int:
        return sum(len(part) if isinstance(part, bytes) else part.stat().st_size for part in self.files.values())


def published_row(run: RunDirectory, step: int, manifest: Manifest) -> Published:
    """The line of the index about a checkpoint of this run."""
    folder = run.checkpoint(step)
    return Published(step, manifest.tokens, tag_of(run.name, step), manifest_hash(folder), manifest.parent)


def content_of_step(run: RunDirectory, step: int, series: tuple[Published, ...], destination: Destination) -> Content:
    """Everything published with a step, read back and checked against its manifest first. `series`: what is there before it."""
    parts, repo_id = destination.parts, destination.repo_id
    folder = run.checkpoint(step)
    manifest = verify(folder)
    chosen = [part for part in manifest.parts if part in parts and not part_removed(folder, manifest, part)]
    names = [MANIFEST_NAME, *(name for part in chosen for name in manifest.parts[part])]
    checkpoint: dict[str, bytes | Path] = {name: folder.joinpath(*name.split("/")) for name in check_paths(names, str(folder))}
    row = published_row(run, step, manifest)
    hashes = {name: hash_content(part) for name, part in checkpoint.items()}
    index = Index(run.name, (*series, row), hashes, destination.every_checkpoint)
    files = checkpoint | results_of_run(run, step, index, repo_id) | {INDEX_NAME: index.to_bytes()}
    return Content(step, row, files)


def results_of_run(run: RunDirectory, step: int, index: Index, repo_id: str) -> dict[str, bytes | Path]:
    """The run's records up to a step, without local places: identity, configuration, log, scores, curve, card."""
    files: dict[str, bytes | Path] = {}
    for path in (run.identity_file, run.config_file):
        if path.is_file():
            files[path.name] = _portable(path)
    rows = [row for row in trainlog.read_rows(run.log_file) if row["step"] <= step]
    if rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        files[run.log_file.relative_to(run.path).as_posix()] = without_places(lines).encode()
    for sealed in run.evaluated_steps():
        if sealed <= step:
            path = run.evaluation_file(sealed)
            files[path.relative_to(run.path).as_posix()] = _portable(path)
    curve = draw_curve(rows)
    if curve is not None:
        files[CURVE_NAME] = curve
    files[CARD_NAME] = without_places(write_card(run, step, index, repo_id, with_curve=curve is not None)).encode()
    return files


def hash_results(files: dict[str, bytes | Path]) -> str:
    """One hash of the run's records: whether they have changed since they were published."""
    digest = hashlib.sha256()
    for name, part in sorted(files.items()):
        digest.update(f"{name}\0{hash_content(part).sha256}\0".encode())
    return digest.hexdigest()


def _portable(path: Path) -> bytes:
    return without_places(path.read_text(encoding="utf-8")).encode()
