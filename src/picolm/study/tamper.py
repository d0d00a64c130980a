"""What was changed after it was locked or had ended: the study file, what it names, a run, the record of tuning. Needs no torch.

Nothing here keeps somebody from rewriting everything; it keeps what is judged equal to what was declared and run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from picolm.base.config import read_yaml
from picolm.base.errors import PicoError
from picolm.records.manifest import content, find_damage, hash_file, read_manifest
from picolm.records.prepared import PreparedFolder
from picolm.records.studydir import StudyDirectory
from picolm.study.config import load_study, substance
from picolm.study.lock import LockedCell, StudyLock
from picolm.study.matrix import cells
from picolm.study.receipt import hashes_of, read_receipt


def find_tampering(directory: StudyDirectory, lock: StudyLock, *, weights: bool = False) -> list[str]:
    """One sentence for each thing that is not as it was. `weights`: also every file of every checkpoint, which takes longer."""
    return [
        *_lock_versions(directory, lock),
        *_declaration(directory, lock),
        *_files(directory, lock),
        *_tuning(directory, lock),
        *_runs(directory, lock, weights=weights),
    ]


def _lock_versions(directory: StudyDirectory, lock: StudyLock) -> Iterator[str]:
    """Every version must be in `locks`, whole, and each the child of the one before."""
    parent: str | None = None
    for version in range(1, lock.version + 1):
        path = directory.lock_version(version)
        try:
            found = StudyLock.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            yield f"{path.name} is missing in locks"
            return
        except ValueError as error:
            yield f"locks/{path.name} is damaged: {str(error).splitlines()[0]}"
            return
        if found.hash != found.computed_hash():
            yield f"locks/{path.name} was changed: its hash is not that of its content"
        if found.parent != parent:
            yield f"locks/{path.name} is not the child of the version before it"
        parent = found.hash
    if parent != lock.hash:
        yield f"{directory.lock_file.name} is not version {lock.version} as kept in locks"


def _declaration(directory: StudyDirectory, lock: StudyLock) -> Iterator[str]:
    """The study file and the base configuration, key by key."""
    name = directory.definition.name
    try:
        now = substance(load_study(directory.definition))
    except PicoError as error:
        yield f"{name} can no longer be read: {error.message}"
        return
    yield from _changed(name, substance(lock.config), now)
    base = directory.beside_definition(lock.config.base)
    try:
        yield from _changed(lock.base_name, _flat(lock.base), _flat(read_yaml(base)))
    except PicoError as error:
        yield f"{lock.base_name} can no longer be read: {error.message}"


def _changed(name: str, locked: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for key in sorted(locked.keys() | now.keys()):
        if locked.get(key) != now.get(key):
            yield f"{name}: {key} was {json.dumps(locked.get(key))} when it was locked, now it is {json.dumps(now.get(key))}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of a nested mapping."""
    if not isinstance(value, dict):
        return {prefix: value}
    found = {}
    for key, inner in value.items():
        found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return found


def _files(directory: StudyDirectory, lock: StudyLock) -> Iterator[str]:
    """Analysis files, and local data of evaluations, where they are still there."""
    for name, known in lock.files.items():
        if name.startswith("analyses."):
            reference = lock.config.analyses[name.removeprefix("analyses.")]
            path = directory.beside_definition(reference)
            if path.is_file() and hash_file(path).sha256 != known:
                yield f"{reference} is not the file that was locked ({name})"
        elif Path(name).exists() and hash_of_path(Path(name)) != known:
            yield f"{name} does not hold what was there when the study was locked"
    for name in {variant.config["data.dataset.name"] for variant in lock.variants.values()}:
        folder, locked = PreparedFolder(Path(name)), lock.data.get(Path(name).name)
        if folder.manifest_file.is_file() and locked is not None:
            now = folder.manifest().get("fingerprint")
            if now != locked["fingerprint"]:
                yield f"the data {name} are not those that were locked: {locked['fingerprint'][:12]}, now {str(now)[:12]}"


def hash_of_path(path: Path) -> str:
    """Hash of a file, of prepared data by their manifest, or of every file in a folder."""
    if path.is_file():
        return hash_file(path).sha256
    prepared = PreparedFolder(path)
    if prepared.manifest_file.is_file():
        return str(prepared.manifest().get("fingerprint") or hash_file(prepared.manifest_file).sha256)
    below = sorted(file for file in path.rglob("*") if file.is_file())
    return content([[file.relative_to(path).as_posix(), hash_file(file).sha256] for file in below])


def _tuning(directory: StudyDirectory, lock: StudyLock) -> Iterator[str]:
    """The values picked must be those that the tuning runs give."""
    from picolm.study.tuning import picked_values

    if lock.config.tuning is None or not directory.tuning_file.is_file():
        return
    try:
        record = json.loads(directory.tuning_file.read_text(encoding="utf-8"))
        noted = {variant: facts["value"] for variant, facts in record["picks"].items()}
    except (ValueError, KeyError, TypeError) as error:
        yield f"{directory.tuning_file.name} is damaged: {error}"
        return
    now = {variant: pick.value for variant, pick in picked_values(directory, lock).items()}
    for variant in sorted(noted.keys() | now.keys()):
        if noted.get(variant) != now.get(variant):
            yield f"{directory.tuning_file.name}: {variant} has {noted.get(variant)}, the tuning runs give {now.get(variant)}"


def _runs(directory: StudyDirectory, lock: StudyLock, *, weights: bool) -> Iterator[str]:
    """Every run that has ended, against its receipt and its place in the lock."""
    places = {cell.run: cell for cell in lock.cells}
    versions = {lock.hash} | {_hash_of_version(directory, version) for version in range(1, lock.version)}
    for name in dict.fromkeys(cell.run.name for cell in cells(directory, lock) if cell.ended):
        yield from _run(directory, lock, places[name], versions)
        if weights:
            yield from _weights(directory, name)


def _hash_of_version(directory: StudyDirectory, version: int) -> str:
    path = directory.lock_version(version)
    return str(json.loads(path.read_text(encoding="utf-8")).get("hash")) if path.is_file() else ""


def _run(directory: StudyDirectory, lock: StudyLock, place: LockedCell, versions: set[str]) -> Iterator[str]:
    receipt = read_receipt(directory, place.run)
    assert receipt is not None
    if receipt["hash"] != content({key: value for key, value in receipt.items() if key != "hash"}):
        yield f"receipts/{place.run}.json was changed: its hash is not that of its content"
        return
    if receipt["content"] != place.content:
        yield f"runs/{place.run} was made from other settings than those that are locked"
    run = directory.run(place.run)
    now = hashes_of(run) if run.identity_file.is_file() else {}
    for file, known in receipt["hashes"].items():
        if file not in now:
            yield f"runs/{place.run}/{file} is missing"
        elif now[file] != known:
            yield f"runs/{place.run}/{file} was changed after the run had ended"
    for file in sorted(now.keys() - receipt["hashes"].keys()):
        if not file.startswith("analysis/") or file.split("/")[1] in lock.config.analyses:
            yield f"runs/{place.run}/{file} was added after the run had ended"
    if run.identity_file.is_file():
        yield from _identity(run.identity(), lock, place, versions)


def _identity(facts: dict[str, Any], lock: StudyLock, place: LockedCell, versions: set[str]) -> Iterator[str]:
    if facts.get("config_hash") != place.config_hash:
        yield f"runs/{place.run} was trained with another configuration than the one that is locked"
    sharing = {(cell.variant, cell.seed) for cell in lock.cells if cell.run == place.run}
    if (facts.get("variant"), facts.get("seed")) not in sharing:
        yield f"runs/{place.run} says it is {facts.get('variant')} under seed {facts.get('seed')}"
    if (facts.get("study") or {}).get("lock") not in versions:
        yield f"runs/{place.run} was not made under this lock or a version before it"
    if facts["environment"]["threads"] != lock.environment["threads"]:
        yield f"runs/{place.run} used {facts['environment']['threads']} threads instead of {lock.environment['threads']}"


def _weights(directory: StudyDirectory, name: str) -> Iterator[str]:
    run = directory.run(name)
    for step in run.steps():
        folder = run.checkpoint(step)
        yield from (f"runs/{name}, step {step}: {problem}" for problem in find_damage(folder, read_manifest(folder)))


def find_deviations(directory: StudyDirectory, lock: StudyLock) -> list[str]:
    """What is not as declared, without being wrong: other code or versions than at the lock, runs that nobody asked for."""
    found: dict[str, list[str]] = {}
    for cell in cells(directory, lock):
        if not cell.ended or not cell.run.identity_file.is_file():
            continue
        facts = cell.run.identity()
        for sentence in _differences(lock, facts):
            found.setdefault(sentence, []).append(cell.run.name)
    sentences = [f"{sentence}: {_several(runs)}" for sentence, runs in found.items()]
    known = {cell.run for cell in lock.cells}
    unknown = [run.name for run in sorted(directory.runs.glob("*")) if run.name not in known and not run.name.startswith(".")]
    return sentences + ([f"runs that the study does not ask for, left out: {_several(unknown)}"] if unknown else [])


def _differences(lock: StudyLock, facts: dict[str, Any]) -> Iterator[str]:
    commit, locked = facts["code"].get("git_commit"), lock.code.get("git_commit")
    if commit != locked or facts["code"].get("version") != lock.code.get("version"):
        yield f"made with other code than at the lock ({_code(lock.code)} then, {_code(facts['code'])} now)"
    if facts["code"].get("git_dirty"):
        yield "made with code that was changed and not committed"
    changed = [
        f"{key} {value} then, {facts['environment'].get(key)} now"
        for key, value in lock.environment.items()
        if key not in ("picolm", "threads") and facts["environment"].get(key) != value
    ]
    if changed:
        yield f"made with other versions than at the lock ({'; '.join(changed)})"


def _code(code: dict[str, Any]) -> str:
    commit = code.get("git_commit")
    return f"{code.get('version')}" + (f" at {commit[:10]}" if commit else "")


def _several(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")
