"""Evaluations as written on a command line: `perplexity:data=texts,window=256`, `./mine.py:score:limit=5`."""

from __future__ import annotations

import re
from typing import Any

from picolm.base.config import parse_yaml
from picolm.base.errors import PicoError

_OPTIONS = re.compile(r":(?=[A-Za-z_]\w*=)")
_COMMA = re.compile(r",(?=[A-Za-z_]\w*=)")


def parse_metric(text: str) -> dict[str, Any]:
    """The entry of `evaluation.metrics` that `text` stands for; values are read as YAML."""
    name, *rest = _OPTIONS.split(text, maxsplit=1)
    if not name:
        raise PicoError(f"--metric {text}: no name", "for example --metric perplexity:data=texts")
    entry: dict[str, Any] = {"name": name}
    for option in _COMMA.split(rest[0]) if rest else ():
        key, _, value = option.partition("=")
        entry[key] = parse_yaml(value, f"--metric {text}")
    return entry
