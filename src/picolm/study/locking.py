"""`pico study lock`: fixes what is compared and predicted before the runs that count, and says so if they exist already."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from picolm.base.errors import PicoError
from picolm.records.studydir import StudyDirectory
from picolm.study.config import StudyConfig, load_study, substance
from picolm.study.language import ensure_language
from picolm.study.lock import StudyLock, find_lock, write_lock
from picolm.study.resolve import Resolved, resolve_study


@dataclass(frozen=True)
class LockOutcome:
    """What locking did."""

    lock: StudyLock
    written: bool
    """False: the lock there says the same already."""
    changes: list[str]
    """What differs from the version before, one sentence each."""


def lock_study(directory: StudyDirectory, say: Callable[[str], None] = lambda _: None) -> LockOutcome:
    """The lock of a study as its file is now: the one there if nothing changed, else a new version."""
    parent = find_lock(directory)
    draft = draft_lock(directory, parent, say)
    if parent is not None and parent.substance() == draft.substance():
        return LockOutcome(parent, False, [])
    return LockOutcome(write_lock(directory, draft), True, [] if parent is None else differences(parent, draft))


def current_lock(directory: StudyDirectory, say: Callable[[str], None] = lambda _: None) -> StudyLock:
    """The lock if it says what the file says; else the lock that the study would get now. Nothing is locked."""
    parent = find_lock(directory)
    draft = draft_lock(directory, parent, say)
    if parent is None:
        say("not locked yet")
        return draft
    if parent.substance() == draft.substance():
        return parent
    say(f"the study has changed since version {parent.version} was locked: {'; '.join(differences(parent, draft)[:3])}")
    return draft


def lock_to_run(directory: StudyDirectory, say: Callable[[str], None] = lambda _: None) -> StudyLock:
    """The lock to run under: a first one is written; PicoError if the study has changed since it was locked."""
    parent = find_lock(directory)
    draft = draft_lock(directory, parent, say)
    if parent is None:
        lock = write_lock(directory, draft)
        say(f"locked: version 1, {lock.hash[:12]}, {lock.mode}" + (f": {lock.mode_reason}" if lock.mode_reason else ""))
        return lock
    if parent.substance() != draft.substance():
        changes = "\n".join(f"  {change}" for change in differences(parent, draft))
        raise PicoError(
            f"{directory.definition} is no longer what was locked (version {parent.version}):\n{changes}",
            f"set it back, or make a new version: pico study lock {directory.path}",
        )
    return parent


def draft_lock(directory: StudyDirectory, parent: StudyLock | None, say: Callable[[str], None] = lambda _: None) -> StudyLock:
    """The lock that the study would get now. Nothing is written but the built-in text, if the study asks for it."""
    from picolm.train.identity import code_state, environment

    study = load_study(directory.definition)
    ensure_language(study.language, str(directory.definition), say)
    version = 1 if parent is None else parent.version + 1
    names = {} if parent is None else {cell.content: cell.run for cell in parent.cells}
    resolved = resolve_study(study, directory, names, version)
    reason = seen_before(directory, study, parent)
    exploratory = study.mode == "exploratory" or bool(reason)
    return StudyLock(
        study=study.id,
        version=version,
        parent=None if parent is None else parent.hash,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        mode="exploratory" if exploratory else "confirmatory",
        mode_reason=reason if study.mode == "confirmatory" else "",
        definition=str(directory.definition),
        declared=study.model_dump(mode="json"),
        **_fields(resolved),
        code=code_state(),
        environment={**environment(), "threads": study.execution.threads},
    )


def _fields(resolved: Resolved) -> dict[str, Any]:
    return {name: getattr(resolved, name) for name in type(resolved).__dataclass_fields__}


def seen_before(directory: StudyDirectory, study: StudyConfig, parent: StudyLock | None) -> str:
    """Why nothing can be confirmed any more: data of the seeds that count were there before this lock. Empty: they were not."""
    before = {cell.run: cell for cell in parent.cells} if parent is not None else {}
    innocent = {name for name, cell in before.items() if cell.phase == "tuning" or cell.seed in study.seeds.tuning}
    claimed = {name for name, cell in before.items() if cell.phase in ("confirm", "reserve")}
    found = [
        entry.name
        for entry in sorted(directory.runs.glob("*"))
        if directory.run(entry.name).log_file.is_file() and (entry.name in claimed or entry.name not in innocent)
    ]
    if not found:
        return ""
    shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"{len(found)} run(s) were there before the study was locked: {shown}"


def differences(before: StudyLock, now: StudyLock) -> list[str]:
    """What changed between two versions, one sentence each."""
    found = _changed(substance(before.config), substance(now.config), "")
    for name in sorted(before.variants.keys() & now.variants.keys()):
        found += _changed(before.variants[name].config, now.variants[name].config, f"variant {name}: ")
    for name in sorted(before.data.keys() | now.data.keys()):
        old, new = (lock.data.get(name, {}).get("fingerprint", "none") for lock in (before, now))
        if old != new:
            found.append(f"data {name}: {old[:12]} -> {new[:12]}")
    found += _changed(before.files, now.files, "file ")
    if not found and before.substance() != now.substance():
        found.append("the base configuration, or how it is resolved")
    return found


def _changed(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[str]:
    keys = sorted(before.keys() | now.keys())
    return [f"{prefix}{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]
