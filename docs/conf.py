"""The documentation site: Sphinx with MyST and furo. Built by `make docs`, offline, without warnings, without remote parts."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

sys.path.insert(0, str(Path(__file__).parent))

project = "Pico"
author = "The picolm developers"
copyright = "the picolm developers, Apache-2.0"
release = version = version_of("picolm")

extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing_outside"]
nitpicky = True

html_theme = "furo"
html_title = "Pico"
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
smartquotes = False
highlight_language = "text"
pygments_style = "default"
pygments_dark_style = "github-dark"


def _mathml(as_block: bool) -> Any:
    """A visitor that writes a formula as MathML, which browsers draw by themselves: no script, no font to fetch."""

    def visit(translator: Any, node: Any) -> None:
        translator.body.append(tex2mathml(node.astext(), as_block=as_block))
        raise SkipNode

    return visit


def _write_reference(app: Any) -> None:
    from reference_pages import write_reference

    write_reference(Path(app.srcdir) / "reference")


def setup(app: Any) -> dict[str, bool]:
    """Reference pages are written before anything is read."""
    app.add_html_math_renderer("mathml", inline_renderers=(_mathml(False), None), block_renderers=(_mathml(True), None))
    app.connect("config-inited", lambda app, _: _write_reference(app))
    return {"parallel_read_safe": True}
