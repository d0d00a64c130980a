"""One writer per run folder: a lock file made exclusively, kept fresh by a heartbeat, with a fencing number.

An exclusive create works on every file system that training is done on; `flock` does not (network mounts). A lock whose
heartbeat stopped belongs to a process that is gone: the next one takes over with a higher number, and a sleeper that
wakes up finds a number that is not its own before it can seal anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from picolm.base.errors import PicoError
from picolm.records import durable

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


class RunBusy(PicoError):
    """Another process is writing into the folder."""


class RunLock:
    """Held while a process writes into a run folder."""

    def __init__(self, path: Path, *, heartbeat_seconds: float = HEARTBEAT_SECONDS, stale_seconds: float = STALE_SECONDS) -> None:
        self.path = path
        self._heartbeat_seconds = heartbeat_seconds
        self._stale_seconds = stale_seconds
        self._token = secrets.token_hex(8)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        fence = 0
        if not self._create(fence):
            fence = self._take_over()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="run-lock")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # the folder is gone: nobody can take the lock, and nothing is to be given back
            if self._read().get("token") == self._token:
                self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """PicoError if another process has taken over: call before anything is sealed. OSError if that cannot be read."""
        holder = self._read()
        if not holder:
            raise PicoError(
                f"{self.path} was removed while this process was writing the run", "repeat the same command to continue"
            )
        if holder.get("token") != self._token:
            raise PicoError(
                f"{self.path.parent}: another process (number {holder.get('process', '?')}) has taken over this run",
                "this process had stopped responding; it ends without writing",
            )

    def _create(self, fence: int) -> bool:
        content = json.dumps(self._claim(fence))
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # after a loss of power the next process reads whose lock this was
        return True

    def _take_over(self) -> int:
        holder = self._read()
        if self._is_alive(holder):
            raise RunBusy(
                f"{self.path.parent}: process {holder.get('process', '?')} is writing this run",
                f"wait for it or stop it; a process that is gone is noticed after {self._stale_seconds:.0f} seconds",
            )
        fence = int(holder.get("fence", 0)) + 1
        durable.write_json(self.path, self._claim(fence))
        time.sleep(0.05)  # two takers: the later write wins, and the other one sees a token that is not its own
        self.check()
        return fence

    def _claim(self, fence: int) -> dict[str, Any]:
        return {"process": os.getpid(), "processes": process_space(), "token": self._token, "fence": fence}

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder.get("processes") == process_space() and not _process_exists(holder.get("process")):
            return False
        try:
            return time.time() - self.path.stat().st_mtime < self._stale_seconds
        except FileNotFoundError:
            return False

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _beat(self) -> None:
        while not self._stopped.wait(self._heartbeat_seconds):
            with contextlib.suppress(OSError):  # a mount that is away for a moment: the next beat may succeed
                if self._read().get("token") != self._token:
                    return
                os.utime(self.path)


def process_space() -> str:
    """A hash that two processes share if they see the same process numbers: same machine, start and container."""
    facts = [platform.node()]
    if Path("/proc/self/ns/pid").exists():
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:16]


def _process_exists(process: Any) -> bool:
    """Whether a process of this number runs here; on Windows, where asking would end it, always yes."""
    if os.name == "nt" or not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
