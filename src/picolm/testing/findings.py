"""What a conformance check says: one finding per promise of a contract, and why the promise matters.

A check list is a series of small functions on one subject. A function that returns has found that the promise holds; it may
return a sentence with what it saw. It raises `Broken` where the promise is broken and `NotApplicable` where there is nothing
to check. Anything else it raises was raised by the object under examination, and breaks the promise too.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from picolm.base.errors import PicoError

Verdict = Literal["holds", "does not hold", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """One promise, whether it is kept, and why it matters."""

    promise: str
    """What was checked, as a statement: `the same number twice`."""
    verdict: Verdict
    detail: str
    """What was seen."""
    why: str
    """What goes wrong for a user where it does not hold."""

    @property
    def ok(self) -> bool:
        """Whether it is no complaint."""
        return self.verdict != "does not hold"


class Broken(Exception):
    """A promise is broken; the message says how, and what to do."""


class NotApplicable(Exception):
    """There is nothing to check; the message says why."""


Check = Callable[[Any], str | None]


@dataclass(frozen=True)
class Promise:
    """One entry of a check list."""

    name: str
    why: str
    check: Check


class CheckList:
    """The promises of one sort of extension, in the order in which they are examined."""

    def __init__(self, sort: str, *beginning: Promise) -> None:
        self.sort = sort
        self.promises: list[Promise] = list(beginning)

    def promise(self, name: str, *, why: str) -> Callable[[Check], Check]:
        """Decorator that adds a check under the statement it examines."""

        def add(check: Check) -> Check:
            self.promises.append(Promise(name, why, check))
            return check

        return add

    def examine(self, subject: Any, *, leave_out: Iterable[str] = ()) -> list[Finding]:
        """One finding per promise; `leave_out` names promises that are not examined."""
        left_out = set(leave_out)
        return [_finding(promise, subject) for promise in self.promises if promise.name not in left_out]


def complaints(findings: Iterable[Finding]) -> list[str]:
    """One sentence per promise that is broken: empty for an object that conforms."""
    return [f"{finding.promise}: {finding.detail}" for finding in findings if not finding.ok]


def _finding(promise: Promise, subject: Any) -> Finding:
    try:
        detail = promise.check(subject)
    except NotApplicable as reason:
        return Finding(promise.name, "not applicable", str(reason), promise.why)
    except Broken as reason:
        return Finding(promise.name, "does not hold", str(reason), promise.why)
    except Exception as error:
        return Finding(promise.name, "does not hold", _told(error), promise.why)
    return Finding(promise.name, "holds", detail or "", promise.why)


def _told(error: Exception) -> str:
    """An error of the object under examination in one sentence, with the place in its own code."""
    if isinstance(error, PicoError):
        return f"refused: {error.message}" + (f" ({error.hint})" if error.hint else "")
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if "picolm/testing" not in Path(frame.filename).as_posix()]
    place = f" at {Path(foreign[-1].filename).name}:{foreign[-1].lineno}" if foreign else ""
    return f"{type(error).__name__}{place}: {' '.join(str(error).split())[:300]}"
