"""The two ways in which Pico says no: a message for a person, and a value that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PicoError(Exception):
    """A mistake a person can mend: says which setting, which value, what is allowed; `hint` says what to try next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class Undefined(ValueError):
    """Raised by a metric that has no value for this input; the message is the reason, and becomes the row's note."""


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word most like `word`, or None if nothing is close."""
    candidates = sorted(allowed)
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return close[0] if close else None


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """A hint that names the nearest allowed word, or else lists the allowed ones."""
    candidates = sorted(allowed)
    close = nearest(word, candidates)
    if close is not None:
        return f"did you mean `{close}`?"
    if not candidates:
        return "nothing can be named here"
    return "allowed: " + ", ".join(f"`{candidate}`" for candidate in candidates[:40])
