"""How an object is named in YAML, so that the process that trains finds it: here, and in a process of its own."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

from picolm.base.registry import Registry


class NotNameable(Exception):
    """There is no text by which a new process would find the object."""


def named_here(thing: Any, registry: Registry) -> str:
    """A reference that leads to the object in this process."""
    for entry in registry.entries():
        if entry.object is thing:
            return entry.name
    return f"{thing.__module__}:{thing.__qualname__}"


def named_anywhere(thing: Any, registry: Registry) -> str:
    """A reference that leads to the same code in a new process."""
    for entry in registry.entries():
        if entry.object is thing:
            return entry.name
    if "<locals>" in thing.__qualname__:
        raise NotNameable("it is defined inside a function, where a new process cannot find it")
    from_a_file = thing.__module__.startswith("picolm_user_")  # a name that only this process knows
    if not from_a_file and importlib.util.find_spec(thing.__module__.partition(".")[0]) is not None:
        return f"{thing.__module__}:{thing.__qualname__}"
    file = inspect.getsourcefile(thing)
    if file is None or not Path(file).is_file():
        raise NotNameable("the file it stands in is not known")
    return f"{file}:{thing.__qualname__}"
