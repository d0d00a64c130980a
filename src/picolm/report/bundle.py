"""Vega, Vega-Lite, Vega-Embed and Vega's expression interpreter as one script, taken from the installed vl-convert."""

from __future__ import annotations

import functools
import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from picolm.records import durable

SNIPPET = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def vega_bundle() -> str:
    """JavaScript that sets `window.vegaEmbed`. It contains the interpreter that makes `eval` needless (`ast: true`).

    Bundling takes longer than all the rest of a report, so the result is kept in the user's cache folder, under a name that
    tells its version and its hash; a file that does not fit its name is passed over.
    """
    folder = cache_folder()
    stem = f"vega-{version('vl-convert-python')}-{hashlib.sha256(SNIPPET.encode()).hexdigest()[:8]}"
    for path in sorted(folder.glob(f"{stem}-*.js")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.name == f"{stem}-{_digest(text)}.js":
            return text
    text = _bundle()
    _keep(folder / f"{stem}-{_digest(text)}.js", text)
    return text


def cache_folder() -> Path:
    """Where things are kept that can be made again: `$XDG_CACHE_HOME/picolm`, by default `~/.cache/picolm`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "picolm"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _bundle() -> str:
    import vl_convert

    return str(vl_convert.javascript_bundle(SNIPPET))


def _keep(path: Path, text: str) -> None:
    try:
        durable.write_text(path, text)
    except OSError:
        return  # a home one cannot write to costs time at the next report, nothing else
