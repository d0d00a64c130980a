"""Turns what a machine does to a run (disk full, mount gone, memory short) into a sentence that says what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory

DISK_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("EROFS", "ENOSPC", "EDQUOT", "EIO", "ESTALE", "ENOTCONN", "EACCES", "ENOENT", "ENODEV", "EPERM", "ENOTDIR")
    if hasattr(errno, name)
)
OUT_OF_HOST_MEMORY = ("DefaultCPUAllocator", "not enough memory", "Cannot allocate memory")
"""What torch says in a plain RuntimeError when the host's memory is short."""


@contextmanager
def explained(directory: RunDirectory, accumulation: int) -> Iterator[None]:
    """PicoError for a disk or memory that gave out inside the block; what is sealed stays whole in either case."""
    try:
        yield
    except OSError as error:
        elsewhere = error.filename is not None and not Path(str(error.filename)).is_relative_to(directory.path)
        if error.errno not in DISK_ERRORS or elsewhere:
            raise
        raise PicoError(
            f"{directory.path} can no longer be read or written: {error}",
            "every sealed checkpoint is whole; mend the disk or the mount, then repeat the same command",
        ) from error
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        setting = f"training.optimization.gradient_accumulation_steps={2 * accumulation}"
        raise PicoError(
            f"{directory.path}: out of memory: {str(error).splitlines()[0]}",
            f"smaller micro-batches give the same result: --set {setting}",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the host is used up."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in OUT_OF_HOST_MEMORY)
