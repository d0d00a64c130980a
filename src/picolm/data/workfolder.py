"""Where a preparation works until it is whole: one process at a time, kept after a kill, with a clear word on a full disk."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.data.lock import held
from picolm.records import durable


@contextlib.contextmanager
def working_folder(out: Path, request: str) -> Iterator[Path]:
    """A folder beside `out` that survives a kill, for one process at a time; emptied if it belongs to another request.

    `request` is a hash of everything that fixes the result. The folder is deleted when the work is done.
    """
    work = out.resolve().parent / f".{out.name}.preparing"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with _only_one(work, out):
            marker = work / "request"
            if not marker.is_file() or marker.read_text(encoding="utf-8") != request:
                for place in work.iterdir():
                    if place.is_dir():
                        shutil.rmtree(place)
                durable.write_text(marker, request)
            yield work
            shutil.rmtree(work)
    except OSError as error:
        raise PicoError(*_explain(error, out)) from error


def _explain(error: OSError, out: Path) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk of {out} is full", "free some space and repeat the command: what is done is kept"
    return f"{out} cannot be written: {error}", "choose another --out"


@contextlib.contextmanager
def _only_one(work: Path, out: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(work / "lock", wait=False))
        except OSError as error:
            raise PicoError(f"another process is preparing {out}", "wait for it, or choose another --out") from error
        yield
