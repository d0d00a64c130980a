"""A chart built once and filled many times: the charts of one report differ in little but their data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair
    import pandas


def filled(
    template: altair.LayerChart, data: pandas.DataFrame, *, title: str, layer_data: Mapping[int, pandas.DataFrame] | None = None
) -> altair.LayerChart:
    """`template` with data and a title; `layer_data` gives single layers, by number, data of their own.

    The encodings are shared, not copied: Altair's own `copy` of a layered chart costs as much as building it.
    """
    chart: altair.LayerChart = _shallow(template)
    chart.data, chart.title = data, title
    if layer_data:
        layers = list(template.layer)
        for index, own in layer_data.items():
            layers[index] = _shallow(layers[index])
            layers[index].data = own
        chart.layer = layers
    return chart


def _shallow(chart: Any) -> Any:
    twin = copy.copy(chart)
    object.__setattr__(twin, "_kwds", dict(chart._kwds))
    return twin
