"""Tables in, one HTML file out: it opens offline, fetches nothing, and runs only the scripts it was written with."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.registry import Named, checked_options
from picolm.records import durable
from picolm.records.rundir import RunDirectory
from picolm.report import theme
from picolm.report.bundle import vega_bundle
from picolm.report.figures import write_figures, write_tables
from picolm.report.headline import headlines, subtitle
from picolm.report.panels.contract import DEFAULT_PANELS, PANELS, SEVERAL_PANELS, Figure, Panel
from picolm.report.spec import page_spec, quick_charts
from picolm.report.store import ColumnStore
from picolm.report.tables import ReportData, read_report_data, visible_text

ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Section:
    """A panel with the names its parts have on the page."""

    anchor: str
    panel: Panel
    definition: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """What a report left on disk."""

    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]


def write_report(runs: Sequence[RunDirectory], out: Path | None = None) -> Path:
    """Write the page of one or several runs with the usual panels; its path."""
    return make_report(runs, out).page


def make_report(
    runs: Sequence[RunDirectory],
    out: Path | None = None,
    *,
    panels: Sequence[Named | str] | None = None,
    group_by: str | None = None,
    title: str | None = None,
    figures: Path | None = None,
    style: str = "paper",
    reload_seconds: float | None = None,
) -> Written:
    """Write the page of one or several runs, its tables as parquet beside it, and figures if `figures` names a folder.

    `out`: the file; None: the place that `records` has for it in the first run folder. `reload_seconds`: how often the page
    reads itself again while it is open; None: never.
    """
    data = read_report_data(runs, group_by=group_by)
    with quick_charts():
        built = build_panels(data, usual_panels(data) if panels is None else panels)
    path = out if out is not None else runs[0].report_page
    tables = write_tables(data, path)
    page = render_page(data, built, title=title or page_title(data), tables=tables, reload_seconds=reload_seconds)
    durable.write_text(path, page)
    drawn: Sequence[Path] = [] if figures is None else write_figures(built, figures, style=style, layers=data.layer_count)
    return Written(path, tables, tuple(drawn))


def usual_panels(data: ReportData) -> Sequence[str]:
    """The panels of a page when none are named."""
    return DEFAULT_PANELS if data.single is not None else SEVERAL_PANELS


def build_panels(data: ReportData, panels: Sequence[Named | str]) -> list[Panel]:
    """The panels named, in order; each is told only the tables and its own options."""
    built = []
    for item in panels:
        named = Named.model_validate(item) if isinstance(item, str) else item
        function = PANELS.find(named.name)
        options = checked_options(function, named.options, f"panel {named.name}")
        built.append(function(data, **options))
    return built


def page_title(data: ReportData) -> str:
    """The run's name, or how many runs there are."""
    return data.single.name if data.single is not None else f"{len(data.runs)} runs by {data.group_by}"


def render_page(
    data: ReportData,
    panels: Sequence[Panel],
    *,
    title: str,
    tables: Sequence[Path] = (),
    reload_seconds: float | None = None,
) -> str:
    """The page as text. `tables`: files beside it; `reload_seconds`: how often an open page reads itself again."""
    import jinja2

    count = data.layer_count
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
        title=title,
        subtitle=subtitle(data),
        headlines=headlines(data),
        sections=[section for section in sections if not section.panel.is_missing],
        absent=[section for section in sections if section.panel.is_missing],
        figure_id=lambda figure: numbers[id(figure)],
        kind=lambda block: type(block).__name__,
        layers=data.layers,
        style=style,
        scripts=scripts,
        policy=content_policy(scripts, [style]),
        payload=lambda figure, legend: json_for_script({"name": figure.name, "spec": page_spec(figure, store, legend=legend)}),
        tables=[f"{path.parent.name}/{path.name}" for path in tables],
        live=reload_seconds is not None,
        columns=lambda: script_text(store.json()),
        settings=json_for_script({"config": theme.page_config(count), "reloadSeconds": reload_seconds}),
    )


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
