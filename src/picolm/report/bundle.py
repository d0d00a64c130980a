"""Vega, Vega-Lite, Vega-Embed and Vega's expression interpreter as one script, taken from the installed vl-convert."""

from __future__ import annotations

import functools

SNIPPET = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def vega_bundle() -> str:
    """JavaScript that sets `window.vegaEmbed`. It contains the interpreter that makes `eval` needless (`ast: true`)."""
    import vl_convert

    return str(vl_convert.javascript_bundle(SNIPPET))
