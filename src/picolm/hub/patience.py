"""Waiting for the Hub: which failures pass, how long to wait, and when to give up. Nothing here can lose anything."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from picolm.base.errors import PicoError
from picolm.hub.secrecy import redacted

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
FIRST_WAIT_SECONDS = 1.0
LONGEST_OWN_WAIT_SECONDS = 300.0
LONGEST_ASKED_WAIT_SECONDS = 2 * 3600.0

R = TypeVar("R")


class Patience:
    """Repeats what fails for a while. `attempts`: in a row without success, before it is an error; None: for ever.

    `before_wait` is told the reason and the seconds; `sleep` waits and may end everything by raising.
    """

    def __init__(
        self,
        *,
        attempts: int | None,
        before_wait: Callable[[str, float], None] = lambda reason, seconds: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._attempts = attempts
        self._before_wait = before_wait
        self._sleep = sleep

    def call(self, what: str, attempt: Callable[[], R]) -> R:
        """The result of `attempt`; a failure that does not pass is a PicoError without secrets in it."""
        failures = 0
        while True:
            try:
                return attempt()
            except PicoError:
                raise
            except Exception as error:  # each layer of the client raises its own
                failures += 1
                reason = transient_reason(error)
                if reason is None:
                    raise PicoError(f"{what}: {describe(error)}", hint_for(error)) from None
                if self._attempts is not None and failures >= self._attempts:
                    raise PicoError(f"{what}: {reason}, {failures} times", "nothing is lost: repeat the command later") from None
                seconds = wait_seconds(error, failures)
            self._before_wait(reason, seconds)
            self._sleep(seconds)


def patience_of_a_person(say: Callable[[str], None]) -> Patience:
    """That of somebody who waits for a command: some minutes, and each wait is said."""
    return Patience(attempts=8, before_wait=lambda reason, seconds: say(f"{reason}; trying again in {seconds:.0f} s"))


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def response_of(error: BaseException) -> Any | None:
    """The answer of the server that the error is about, if it gave one."""
    return next((response for cause in causes(error) if (response := getattr(cause, "response", None)) is not None), None)


def status_of(error: BaseException) -> int | None:
    """The status of that answer."""
    return getattr(response_of(error), "status_code", None)


def transient_reason(error: BaseException) -> str | None:
    """Why the failure may pass; None if it will not."""
    status = status_of(error)
    if status is not None:
        return f"the Hub answers {status}" if status in TRANSIENT_STATUS else None
    for cause in causes(error):
        if type(cause).__name__ in ("OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL", "LocalTokenNotFoundError"):
            return None
        module = type(cause).__module__
        if isinstance(cause, TimeoutError | ConnectionError) or module.startswith(("httpx", "httpcore", "requests", "urllib3")):
            return f"the Hub cannot be reached ({type(cause).__name__})"
    return None


def wait_seconds(error: BaseException, failures: int) -> float:
    """What the Hub asks for in its headers or its words; else 1, 2, 4, ... up to 300 seconds; both with jitter on top."""
    own = min(FIRST_WAIT_SECONDS * 2.0 ** (failures - 1), LONGEST_OWN_WAIT_SECONDS)
    asked = asked_seconds(error)
    jitter = random.random()
    if asked is None:
        return own * (0.5 + jitter / 2)
    return min(asked, LONGEST_ASKED_WAIT_SECONDS) + min(own, 10.0) * jitter


def asked_seconds(error: BaseException) -> float | None:
    """`Retry-After`, or `t` of `RateLimit: "api";r=0;t=55`, or "retry in about 1 hour" in the text."""
    response = response_of(error)
    headers = {str(name).lower(): str(value) for name, value in dict(getattr(response, "headers", None) or {}).items()}
    if headers.get("retry-after", "").strip().isdecimal():
        return float(headers["retry-after"])
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
    if limit:
        return float(limit[1])
    if getattr(response, "status_code", None) != 429:
        return None
    words = re.search(r"(?:retry|again)[^.]{0,40}?\bin (?:about )?(\d+|an?|one) (second|minute|hour)", str(error), re.IGNORECASE)
    if not words:
        return None
    count = int(words[1]) if words[1].isdecimal() else 1
    return float(count * {"second": 1, "minute": 60, "hour": 3600}[words[2].lower()])


def describe(error: BaseException) -> str:
    """The error in one line, without secrets."""
    status = status_of(error)
    text = " ".join(str(error).split())[:300]
    return redacted(f"{type(error).__name__}: {text}" if status is None else f"the Hub answers {status}: {text}")


def hint_for(error: BaseException) -> str:
    """What a person can do about a failure that does not pass."""
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set: unset it, or run the command where the Hub can be reached"
    return {
        401: "log in with `hf auth login`, or set HF_TOKEN",
        403: "your token may not do this: make one with write access to the repository",
        404: "check the name; a private repository needs a token that may read it",
    }.get(status_of(error) or 0, "nothing is lost: mend the cause and repeat the command")
