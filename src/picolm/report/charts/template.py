"""A chart built once and filled many times: the charts of one report differ in little but their data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas

Chart = TypeVar("Chart")

_ORIGIN = "_picolm_origin"
_SPEC = "_picolm_spec"


@dataclass(frozen=True)
class Origin:
    """How a chart came about: the template and what it was filled with."""

    template: Any
    data: pandas.DataFrame
    title: str
    layer_data: dict[int, pandas.DataFrame]


def filled(
    template: Chart, data: pandas.DataFrame, *, title: str, layer_data: Mapping[int, pandas.DataFrame] | None = None
) -> Chart:
    """`template` with data and a title; `layer_data` gives single layers, by number, data of their own.

    The encodings are shared, not copied: Altair's own `copy` of a layered chart costs as much as building it.
    """
    chart: Any = _shallow(template)
    chart.data, chart.title = data, title
    if layer_data:
        layers = list(chart.layer)
        for index, own in layer_data.items():
            layers[index] = _shallow(layers[index])
            layers[index].data = own
        chart.layer = layers
    object.__setattr__(chart, _ORIGIN, Origin(template, data, title, dict(layer_data or {})))
    return chart  # type: ignore[no-any-return]


def origin_of(chart: Any) -> Origin | None:
    """How `filled` made this chart; None if something else made it, or it was changed since."""
    origin: Origin | None = vars(chart).get(_ORIGIN)
    untouched = origin is not None and chart.data is origin.data and chart.title == origin.title
    return origin if untouched else None


def template_spec(template: Any) -> dict[str, Any]:
    """The Vega-Lite specification of a template without data, made once; a copy that may be changed."""
    known = vars(template).get(_SPEC)
    if known is None:
        known = template.to_dict(validate=False)
        for part in (known, *known.get("layer", ())):
            part.pop("data", None)  # Altair's word for no data at all, which would hide what the chart is filled with
        object.__setattr__(template, _SPEC, known)
    return dict(copy.deepcopy(known))


def _shallow(chart: Any) -> Any:
    twin = copy.copy(chart)
    object.__setattr__(twin, "_kwds", dict(chart._kwds))
    return twin
