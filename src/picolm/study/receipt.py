"""How a run of a study ended, with the hashes of what it left: written once it has ended, compared when it is judged."""

from __future__ import annotations

import json
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import durable, trainlog
from picolm.records.manifest import content, hash_file, manifest_hash
from picolm.records.rundir import RunDirectory
from picolm.records.studydir import StudyDirectory
from picolm.records.table import parts

FORMAT = "picolm.receipt/1"


def hashes_of(run: RunDirectory) -> dict[str, str]:
    """What a run left -> SHA-256: identity, configuration, log, scores, analyses, and the manifest of every checkpoint."""
    files = [run.identity_file, run.config_file, run.log_file]
    files += [run.evaluation_file(step) for step in run.evaluated_steps()]
    files += [part for name in run.analysis_names() for part in parts(run.analysis(name))]
    found = {file.relative_to(run.path).as_posix(): hash_file(file).sha256 for file in files if file.is_file()}
    for step in run.steps():
        folder = run.checkpoint(step)
        found[folder.relative_to(run.path).as_posix()] = manifest_hash(folder)
    return found


def write_receipt(
    directory: StudyDirectory, run: str, *, status: str, reason: str, lock: str, sort: str, seconds: float
) -> dict[str, Any]:
    """Note how a run ended. `sort`: the content hash of its place in the lock; `seconds`: what it took, start-up not counted."""
    folder = directory.run(run)
    rows = trainlog.read_rows(folder.log_file)
    receipt = {
        "format": FORMAT,
        "run": run,
        "status": status,
        "reason": reason,
        "step": rows[-1]["step"] if rows else 0,
        "tokens": rows[-1]["tokens"] if rows else 0,
        "lock": lock,
        "content": sort,
        "seconds": round(seconds, 3),
        "hashes": hashes_of(folder) if folder.identity_file.is_file() else {},
    }
    sealed = {**receipt, "hash": content(receipt)}
    durable.write_json(directory.receipt(run), sealed)
    return sealed


def read_receipt(directory: StudyDirectory, run: str) -> dict[str, Any] | None:
    """The receipt of a run, None if there is none; PicoError if it cannot be read."""
    path = directory.receipt(run)
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise PicoError(f"{path} is damaged: {error}", "delete it: `pico study run` looks at the run again") from error
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        raise PicoError(f"{path} is not of the format {FORMAT}", "delete it: `pico study run` looks at the run again")
    return receipt
