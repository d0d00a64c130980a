"""The page itself: panels in, one self-contained HTML text out. It opens offline and runs only its own scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.report import theme
from picolm.report.bundle import vega_bundle
from picolm.report.headline import Headline
from picolm.report.panels.contract import Figure, Panel
from picolm.report.spec import page_spec
from picolm.report.store import ColumnStore
from picolm.report.visible import visible_text

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Lead:
    """What stands above all panels of a page that has an answer: one word, and the paragraph that goes with it."""

    word: str
    """A verdict; it also chooses the colour."""
    paragraph: str


@dataclass(frozen=True)
class Top:
    """Everything above the panels."""

    title: str
    subtitle: str = ""
    kind: str = "Pico report"
    """What sort of page it is, in small letters above the title."""
    lead: Lead | None = None
    headlines: Sequence[Headline] = ()
    notices: Sequence[str] = ()
    """What looks wrong, in sentences."""


@dataclass(frozen=True)
class Section:
    """A panel with the names its parts have on the page."""

    anchor: str
    panel: Panel
    definition: tuple[str, ...]


def render_page(
    top: Top,
    panels: Sequence[Panel],
    *,
    layers: Sequence[int] = (),
    tables: Sequence[str] = (),
    reload_seconds: float | None = None,
) -> str:
    """The page as text. `layers`: those of the model, each with its colour; `tables`: files beside the page;
    `reload_seconds`: how often an open page reads itself again, None: never.
    """
    import jinja2

    count = max(layers, default=0) + 1
    scripts = [f"(()=>{{{vega_bundle()}}})()", _asset("page.js")]
    scripts = [re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE) for script in scripts]
    style = _variables(count) + _asset("page.css")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
    )
    store = ColumnStore()
    sections = [_section(index, panel) for index, panel in enumerate(panels)]
    numbers = {id(figure): f"figure-{index}" for index, figure in enumerate(_figures(panels))}
    return environment.get_template("page.html.j2").render(
        top=top,
        sections=[section for section in sections if not section.panel.is_missing],
        absent=[section for section in sections if section.panel.is_missing],
        figure_id=lambda figure: numbers[id(figure)],
        kind=lambda block: type(block).__name__,
        prose=prose,
        layers=layers,
        style=style,
        scripts=scripts,
        policy=content_policy(scripts, [style]),
        payload=lambda figure, legend: json_for_script({"name": figure.name, "spec": page_spec(figure, store, legend=legend)}),
        tables=tables,
        live=reload_seconds is not None,
        columns=lambda: script_text(store.json()),
        settings=json_for_script({"config": theme.page_config(count), "reloadSeconds": reload_seconds}),
    )


def prose(text: str) -> str:
    """A paragraph as HTML: everything escaped, names between backticks set as code."""
    import markupsafe

    pieces = [markupsafe.escape(piece) for piece in visible_text(text).split("`")]
    if len(pieces) % 2 == 0:
        return markupsafe.escape(visible_text(text))
    code = markupsafe.Markup("<code>{}</code>")
    return markupsafe.Markup("").join(code.format(piece) if index % 2 else piece for index, piece in enumerate(pieces))


def _finalized(value: Any) -> Any:
    """The last gate: whatever text reaches the page as text has no character one cannot see."""
    return visible_text(value) if type(value) is str else value


def _figures(panels: Sequence[Panel]) -> Iterator[Figure]:
    for panel in panels:
        yield from panel.figures()


def _section(index: int, panel: Panel) -> Section:
    words = re.sub(r"[^a-z0-9]+", "-", panel.title.lower()).strip("-")
    return Section(
        f"{words or 'panel'}-{index}", panel, tuple(piece for piece in panel.definition.split("\n\n") if piece.strip())
    )


def json_for_script(value: Any) -> str:
    """`value` as JSON that cannot end the script element it stands in, marked as safe for the template."""
    return script_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def script_text(text: str) -> str:
    """JSON text with every character that means something to HTML written as an escape, marked as safe for the template."""
    import markupsafe

    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)


def content_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A content security policy under which exactly these scripts and styles run and nothing is fetched."""

    def hashes(texts: Sequence[str]) -> str:
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts)

    rules = ["default-src 'none'", f"script-src {hashes(scripts)}", f"style-src {hashes(styles)}", "img-src data: blob:"]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _variables(layers: int) -> str:
    def rule(dark: bool) -> str:
        return ";".join(f"{name}:{color}" for name, color in theme.page_variables(layers, dark=dark).items())

    light, dark = rule(False), rule(True)
    swatches = "".join(f".layer-{index}{{--swatch:var(--layer-{index})}}" for index in range(layers))
    return (
        f":root{{{light}}}\n:root[data-theme=dark]{{{dark}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f"@media print{{:root:root:root{{{light}}}}}\n{swatches}\n"
    )
