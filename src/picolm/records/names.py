"""Plain tensor names, the same in every variant: `layers.3.attention.v_proj` is layer 3, part `attention.v_proj`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from picolm.base.errors import PicoError, suggestion

DATA_TYPES = ("weights", "activations", "gradients", "updates", "first_order")
"""What a row can be about; `first_order` is the first-order motion of a composed circuit."""

SPLITS = ("train", "val")

_LAYER = re.compile(r"^layers\.(\d+)\.(.+)$")


class PlainName(NamedTuple):
    """A plain name in two: layer (None outside the blocks) and part."""

    layer: int | None
    part: str


def split_name(name: str) -> PlainName:
    """`layers.3.swiglu.w_2` -> (3, `swiglu.w_2`); `output_norm` -> (None, `output_norm`)."""
    match = _LAYER.match(name)
    return PlainName(int(match[1]), match[2]) if match else PlainName(None, name)


def join_name(layer: int | None, part: str) -> str:
    """The plain name of a part of a layer: inverse of `split_name`."""
    return part if layer is None else f"layers.{layer}.{part}"


def natural_order(name: str) -> tuple[object, ...]:
    """Sort key that puts layer 2 before layer 10."""
    return tuple((0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in name.split("."))


def matches(name: str, pattern: str) -> bool:
    """Whether a plain name ends in `pattern` (whole dotted pieces), or fits it as a glob."""
    if any(character in pattern for character in "*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return name == pattern or name.endswith("." + pattern)


def expand_patterns(patterns: Sequence[str], names: Iterable[str], setting: str) -> list[str]:
    """The names that fit any pattern, in natural order. A pattern that fits nothing is a PicoError naming `setting`."""
    known = sorted(set(names), key=natural_order)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            raise PicoError(
                f"{setting}: `{pattern}` matches no layer",
                suggestion(pattern, {split_name(name).part for name in known}),
            )
    return [name for name in known if any(matches(name, pattern) for pattern in patterns)]
