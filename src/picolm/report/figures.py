"""The charts of a report as files for a paper or a talk: SVG, PDF, PNG, and the numbers behind each as CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError, suggestion
from picolm.records import durable
from picolm.report import theme
from picolm.report.panels.contract import Figure, Panel
from picolm.report.spec import chart_spec, table_rows, with_rows

if TYPE_CHECKING:
    import pandas

    from picolm.report.tables import ReportData

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Text cells that begin so are run as formulas by spreadsheets; they get an apostrophe."""

DRAWINGS = ("svg", "pdf", "png")


def write_figures(panels: Sequence[Panel], folder: Path, *, style: str = "paper", layers: int = 1) -> list[Path]:
    """Write every figure of the panels into a folder, each as SVG, PDF, PNG, CSV and JSON; the paths."""
    if style not in theme.STYLES:
        raise PicoError(f"--style {style}: not a style", suggestion(style, theme.STYLES))
    written: list[Path] = []
    taken: set[str] = set()
    for figure in (figure for panel in panels for figure in panel.figures()):
        stem = _free_stem(figure.name, taken)
        written += _write_drawings(figure, folder, stem, theme.STYLES[style], layers)
        written += write_numbers(figure.data, folder / stem)
    return written


def _free_stem(name: str, taken: set[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "figure"
    candidates = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    free = next(candidate for candidate in candidates if candidate.lower() not in taken)
    taken.add(free.lower())
    return free


def styled_spec(figure: Figure, style: theme.Style, layers: int) -> dict[str, Any]:
    """The specification of a figure that stands by itself: data, size and colours included."""
    spec = with_rows(chart_spec(figure.chart))
    spec.setdefault("width", style.width)
    spec.setdefault("height", style.height)
    return spec | {"config": theme.figure_config(style, layers)}


def _write_drawings(figure: Figure, folder: Path, stem: str, style: theme.Style, layers: int) -> list[Path]:
    import vl_convert

    spec = styled_spec(figure, style, layers)
    drawings = {
        "svg": vl_convert.vegalite_to_svg(spec).encode(),
        "pdf": vl_convert.vegalite_to_pdf(spec),
        "png": vl_convert.vegalite_to_png(spec, scale=style.scale),
    }
    paths = [folder / f"{stem}.{kind}" for kind in DRAWINGS]
    for path, kind in zip(paths, DRAWINGS, strict=True):
        durable.write_bytes(path, drawings[kind])
    return paths


def write_tables(data: ReportData, page: Path) -> tuple[Path, ...]:
    """The whole tables behind a page, nothing thinned, as parquet in the folder `<page>-data` beside it; the paths."""
    import io

    folder = page.with_name(f"{page.stem}-data")
    written = []
    for name in ("log", "scores", "rows", "checkpoints"):
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
