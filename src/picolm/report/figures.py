"""The charts of a report as files for a paper or a talk: SVG, PDF, PNG, and the numbers behind each as CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError, suggestion
from picolm.records import durable
from picolm.report import theme
from picolm.report.panels.contract import Figure, Panel
from picolm.report.spec import chart_spec, table_rows, with_rows
from picolm.report.tables import TABLES

if TYPE_CHECKING:
    import pandas

    from picolm.report.tables import ReportData

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Text cells that begin so are run as formulas by spreadsheets; they get an apostrophe."""

DRAWINGS = ("svg", "pdf", "png")


def write_figures(panels: Sequence[Panel], folder: Path, *, style: str = "paper", layers: int = 1) -> list[Path]:
    """Write every figure of the panels into a folder, each as SVG, PDF, PNG, CSV and JSON; the paths."""
    _style(style)
    written: list[Path] = []
    taken: set[str] = set()
    for figure in (figure for panel in panels for figure in panel.figures()):
        stem = _free_stem(figure.name, taken)
        written += _write_drawings(figure, folder, stem, style, layers)
        written += write_numbers(figure.data, folder / stem)
    return written


def _free_stem(name: str, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "figure"
    candidates = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    free = next(candidate for candidate in candidates if candidate.lower() not in taken)
    taken.add(free.lower())
    return free


def styled(chart: Any, style: str = "paper", *, layers: int | None = None) -> Any:
    """`chart` in the size and the colours of a figure for a paper (one column) or a slide, as a new Altair chart."""
    sizes = _style(style)
    result = chart.copy(deep=False)
    result.width, result.height = sizes.width, sizes.height
    result.config = theme.figure_config(sizes, _layer_count(chart) if layers is None else layers)
    return result


def _style(name: str) -> theme.Style:
    if name not in theme.STYLES:
        raise PicoError(f"--style {name}: not a style", suggestion(name, theme.STYLES))
    return theme.STYLES[name]


def _layer_count(chart: Any) -> int:
    names = getattr(chart.data, "columns", ())
    return max(int(chart.data["layer"].nunique()), 1) if "layer" in names else 1


def save_chart(chart: Any, path: Path, *, style: str = "paper", layers: int | None = None) -> Path:
    """Draw a chart into a file, by its ending SVG, PDF or PNG; the path."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in DRAWINGS:
        raise PicoError(f"{path}: charts are drawn as {', '.join(DRAWINGS)}", suggestion(kind, DRAWINGS))
    durable.write_bytes(path, _drawings(_standing_spec(chart, style, layers), [kind], _style(style).scale)[kind])
    return path


def _standing_spec(chart: Any, style: str, layers: int | None) -> dict[str, Any]:
    sizes = _style(style)
    spec = with_rows(chart_spec(chart))
    count = _layer_count(chart) if layers is None else layers
    return {"width": sizes.width, "height": sizes.height, **spec, "config": theme.figure_config(sizes, count)}


def _drawings(spec: dict[str, Any], kinds: Sequence[str], scale: float) -> dict[str, bytes]:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(spec)
    makers: dict[str, Callable[[], bytes]] = {
        "svg": lambda: bytes(svg.encode()),
        "pdf": lambda: bytes(vl_convert.svg_to_pdf(svg)),
        "png": lambda: bytes(vl_convert.svg_to_png(svg, scale=scale)),
    }
    return {kind: makers[kind]() for kind in kinds}


def _write_drawings(figure: Figure, folder: Path, stem: str, style: str, layers: int) -> list[Path]:
    drawings = _drawings(_standing_spec(figure.chart, style, layers), DRAWINGS, _style(style).scale)
    paths = []
    for kind, content in drawings.items():
        paths.append(folder / f"{stem}.{kind}")
        durable.write_bytes(paths[-1], content)
    return paths


def write_tables(data: ReportData, page: Path) -> tuple[Path, ...]:
    """The whole tables behind a page, nothing thinned, as parquet in the folder `<page>-data` beside it; the paths."""
    import io

    folder = page.with_name(f"{page.stem}-data")
    written = []
    for name in TABLES:
        table = getattr(data, name)
        if len(table):
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            path = folder / f"{name}.parquet"
            durable.write_bytes(path, buffer.getvalue())
            written.append(path)
    return tuple(written)


def write_numbers(data: pandas.DataFrame, stem: Path) -> list[Path]:
    """The numbers behind a figure, in full precision, as `<stem>.csv` and `<stem>.json`."""
    csv, text = stem.with_name(stem.name + ".csv"), stem.with_name(stem.name + ".json")
    durable.write_text(csv, inert_csv(data))
    durable.write_text(text, json.dumps(table_rows(data), ensure_ascii=False, allow_nan=False, indent=0) + "\n")
    return [csv, text]


def inert_csv(data: pandas.DataFrame) -> str:
    """A table as CSV in which no text cell is taken for a formula."""
    safe = data.copy()
    for name in safe.columns:
        if safe[name].dtype == object or str(safe[name].dtype).startswith("str"):
            safe[name] = safe[name].map(_inert, na_action="ignore")
    safe.columns = [_inert(str(name)) for name in safe.columns]
    return safe.to_csv(index=False)


def _inert(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
