"""Pico: hypothesis-driven research on small language models. Importing this loads no torch until something needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picolm import analyze
    from picolm.base.errors import PicoError, Undefined
    from picolm.face import Checkpoint, Run, load_model, metric, open_run
    from picolm.model.decoder import DecoderConfig, PicoDecoder

__all__ = [
    "Checkpoint",
    "DecoderConfig",
    "PicoDecoder",
    "PicoError",
    "Run",
    "Undefined",
    "analyze",
    "load_model",
    "metric",
    "open_run",
]

_HOMES = {
    "PicoError": "picolm.base.errors",
    "Undefined": "picolm.base.errors",
    "DecoderConfig": "picolm.model.decoder",
    "PicoDecoder": "picolm.model.decoder",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'picolm' has no attribute {name!r}")
    if name == "analyze":
        return importlib.import_module("picolm.analyze")
    return getattr(importlib.import_module(_HOMES.get(name, "picolm.face")), name)


def __dir__() -> list[str]:
    return __all__
