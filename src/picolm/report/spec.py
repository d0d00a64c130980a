"""From an Altair chart to what the page embeds: the specification and its data apart from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from picolm.report.charts.template import Origin, origin_of, template_spec
from picolm.report.panels.contract import Figure
from picolm.report.store import ColumnStore, plain_values

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Specification:
    """A Vega-Lite specification that names its data, and the tables of those names."""

    vega_lite: dict[str, Any]
    tables: dict[str, pandas.DataFrame]


@contextmanager
def quick_charts() -> Iterator[None]:
    """Build charts without checking each piece against the schema as it is made: four times as fast. Tests check them whole."""
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):
        yield


def chart_spec(chart: Any) -> Specification:
    """The specification of an Altair chart without its data, and the data; there is no limit on rows."""
    origin = origin_of(chart)
    return _spec_from_template(origin) if origin is not None else _spec_of(chart)


def _spec_from_template(origin: Origin) -> Specification:
    spec = template_spec(origin.template)
    spec.pop("config", None)
    tables = {"table_0": origin.data}
    spec |= {"data": {"name": "table_0"}, "title": origin.title}
    for index, data in origin.layer_data.items():
        name = f"table_{len(tables)}"
        tables[name] = data
        spec["layer"][index]["data"] = {"name": name}
    return Specification(spec, tables)


def _spec_of(chart: Any) -> Specification:
    import altair

    tables: dict[str, pandas.DataFrame] = {}

    def set_aside(data: Any = None, **_: Any) -> Any:
        known = next((name for name, table in tables.items() if table is data), None)
        name = known or f"table_{len(tables)}"
        tables[name] = data
        return {"name": name}

    altair.data_transformers.register("picolm", set_aside)
    with altair.data_transformers.enable("picolm"):
        vega_lite: dict[str, Any] = chart.to_dict(validate=False)
    vega_lite.pop("config", None)
    return Specification(vega_lite, tables)


def with_rows(specification: Specification) -> dict[str, Any]:
    """A specification that stands by itself, its data as rows: what other Vega-Lite tools read."""
    rows = {name: table_rows(table) for name, table in specification.tables.items()}
    return specification.vega_lite | {"datasets": rows}


def table_rows(table: pandas.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON objects; undefined values are null."""
    names = [str(name) for name in table.columns]
    values = [plain_values(table[name]) for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def page_spec(figure: Figure, store: ColumnStore, *, legend: bool) -> dict[str, Any]:
    """The specification of a figure for the page: as wide as its place, its data as places in the store.

    `legend`: whether its layers are told apart in the chart itself, not by a legend that several charts share.
    """
    specification = chart_spec(figure.chart)
    spec = specification.vega_lite
    spec.pop("title", None)
    spec.setdefault("width", "container")
    spec.setdefault("height", figure.height)
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec["description"] = f"{figure.title}. {figure.caption}".strip()
    for encoding in _encodings(spec):
        if not legend and isinstance(encoding.get("color"), dict) and encoding["color"].get("field") == "layer":
            encoding["color"]["legend"] = None
        if isinstance(encoding.get("y"), dict) and _told_by(figure.title, encoding["y"].get("title")):
            encoding["y"]["title"] = None
    spec["datasets"] = {name: store.add_table(table) for name, table in specification.tables.items()}
    return spec


def _told_by(title: str, axis_title: Any) -> bool:
    return isinstance(axis_title, str) and title.lower().endswith(axis_title.lower())


def _encodings(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "encoding" in spec:
        yield spec["encoding"]
    for part in spec.get("layer", []):
        yield from _encodings(part)
