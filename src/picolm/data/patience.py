"""Repeat what fails because the other side is busy: only named transient failures, with growing pauses, and said so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from picolm.base.errors import PicoError

TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
ATTEMPTS = 7
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0

R = TypeVar("R")
logger = logging.getLogger(__name__)


def patiently(what: str, attempt: Callable[[], R], sleep: Callable[[float], None] = time.sleep, attempts: int | None = None) -> R:
    """The result of `attempt`. FileNotFoundError and PicoError pass through; any other failure that lasts is a PicoError."""
    wait, attempts = FIRST_WAIT_SECONDS, attempts or ATTEMPTS
    for number in range(1, attempts + 1):
        try:
            return attempt()
        except Exception as error:  # every file system and client raises its own
            reason = transient_reason(error)
            if reason is None and isinstance(error, FileNotFoundError | PicoError):
                raise
            if reason is None or number == attempts:
                raise PicoError(
                    f"{what} cannot be reached: {reason or error}",
                    "check the address, the network and your rights; repeating continues",
                ) from error
            pause = min(asked_wait(error) or wait, LONGEST_WAIT_SECONDS)
            logger.warning("%s: %s; trying again in %.0f s (%d of %d)", what, reason, pause, number, attempts - 1)
            sleep(pause)
            wait *= 2
    raise AssertionError("unreachable")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it: file systems wrap the answer of the server."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def transient_reason(error: BaseException) -> str | None:
    """Why an error may pass if one waits; None if it will not."""
    for cause in _chain(error):
        status = _status(cause)
        if status is not None:
            return f"the server answers {status}" if status in TRANSIENT_STATUS else None
    for cause in _chain(error):
        if isinstance(cause, TimeoutError | ConnectionError) or type(cause).__module__.startswith(("aiohttp", "httpx")):
            return f"{type(cause).__name__}: {cause}"
    return None


def asked_wait(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (`Retry-After`)."""
    for cause in _chain(error):
        for holder in (cause, getattr(cause, "response", None)):
            value = (getattr(holder, "headers", None) or {}).get("Retry-After")
            if value is not None and str(value).isdecimal():
                return float(value)
    return None
