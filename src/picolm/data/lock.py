"""A lock between processes of one machine on a file; the system lets go of it when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
"""What file systems answer that know no locks, such as some network mounts."""


@contextlib.contextmanager
def held(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock `path` while the block runs. BlockingIOError if another process has it and `wait` is False.

    Where the file system knows no locks, nothing is held: whoever calls must be right without it, only slower.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            _take(file.fileno(), wait=wait)
        except OSError as error:
            if not wait or error.errno not in UNSUPPORTED:
                raise
        yield


def _take(descriptor: int, *, wait: bool) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
