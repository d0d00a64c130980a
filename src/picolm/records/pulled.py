"""What stayed on the Hub when a checkpoint was pulled in part: noted beside it, so that a missing file is not taken for damage.

The note is written before the checkpoint appears and is no part of its seal; it shrinks as further parts are pulled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.records import durable

PULLED_NAME = "pulled.json"
FORMAT = "picolm.pulled/1"


@dataclass(frozen=True)
class Pulled:
    """A checkpoint of which only some files were pulled."""

    source: str
    """Where the rest is: owner/name@branch."""
    absent: tuple[str, ...]
    """Files that the manifest lists and that were not asked for, or are not published."""

    @property
    def summary(self) -> str:
        """What is not here, in a few words."""
        shown = ", ".join(self.absent[:3]) + (f" and {len(self.absent) - 3} more" if len(self.absent) > 3 else "")
        return f"{shown}: not pulled from {self.source}"


def write_pulled(folder: Path, pulled: Pulled) -> None:
    """Note what is absent from a checkpoint folder; nothing absent: no note."""
    path = folder / PULLED_NAME
    if pulled.absent:
        durable.write_json(path, {"format": FORMAT, **asdict(pulled)})
    else:
        path.unlink(missing_ok=True)


def read_pulled(folder: Path) -> Pulled | None:
    """The note of a checkpoint folder; None if it was not pulled, or pulled whole."""
    path = folder / PULLED_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        return Pulled(str(content["source"]), tuple(str(name) for name in content["absent"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PicoError(f"{path} is damaged: {error}", "delete the checkpoint folder and pull it again") from error
