"""Colours and type of every chart: one set of names, three styles (page, paper, slides).

Charts name roles (`floor`, `band`, series by rank, layers in order); only this file knows colours. On the page they are CSS
variables, so dark, light and print need no second drawing. Series: Okabe and Ito's palette, made for colour-blind readers.
Layers: viridis, ordered and even in lightness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VIRIDIS = (
    *("#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c"),
    *("#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"),
)
SERIES_LIGHT = ("#0072b2", "#d55e00", "#009a70", "#c977a5", "#614300", "#4a9bc9", "#373100", "#6a6a6a")
SERIES_DARK = ("#56b4e9", "#f2864b", "#007656", "#c474a0", "#e8a614", "#2988be", "#796b00", "#d3d3d3")
"""Okabe and Ito's hues, their lightness chosen so that any two differ for every sort of colour vision and all stand out from the
paper; a test measures it."""

LIGHT = {
    "ink": "#16191d",
    "soft": "#4a525c",
    "faint": "#68717c",
    "line": "#d9dde2",
    "grid": "#eceef1",
    "paper": "#ffffff",
    "sheet": "#f6f7f9",
    "accent": "#0067a3",
    "floor": "#8a4b00",
}
DARK = {
    "ink": "#eef1f4",
    "soft": "#b6bec8",
    "faint": "#97a1ad",
    "line": "#343b44",
    "grid": "#252b32",
    "paper": "#14181d",
    "sheet": "#0c0f12",
    "accent": "#6cc0f2",
    "floor": "#f0b06a",
}

PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FIGURE_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Style:
    """Sizes of a figure that leaves the page. Lengths in CSS pixels (1/96 inch)."""

    width: int
    height: int
    font_size: float
    line_width: float
    scale: float
    """Pixels of the PNG per CSS pixel."""


STYLES = {
    "paper": Style(width=312, height=190, font_size=9, line_width=1.3, scale=4),
    "slides": Style(width=860, height=420, font_size=19, line_width=3, scale=2),
}
"""`paper`: one column of a two-column page (3.25 inches); `slides`: most of a 16:9 slide."""


def _mixed(first: str, second: str, share: float) -> str:
    pairs = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def layer_colors(count: int, *, dark: bool = False) -> list[str]:
    """`count` colours along viridis, first layer to last; the end that would vanish into the background is left out."""
    low, high = (0.28, 1.0) if dark else (0.0, 0.86)
    positions = [low + (high - low) * (index / (count - 1) if count > 1 else 0.35) for index in range(count)]
    last = len(VIRIDIS) - 1
    cells = [(min(int(position * last), last - 1), position * last) for position in positions]
    return [_mixed(VIRIDIS[cell], VIRIDIS[cell + 1], place - cell) for cell, place in cells]


def figure_config(style: Style, layers: int) -> dict[str, Any]:
    """Vega-Lite configuration of a figure for a paper or a slide: literal colours on white."""
    return _config(
        colors=LIGHT, series=list(SERIES_LIGHT), layers=layer_colors(max(layers, 1)), font=FIGURE_FONT, size=style.font_size,
        line_width=style.line_width,
    ) | {"background": "white"}  # fmt: skip


def page_config(layers: int) -> dict[str, Any]:
    """Vega-Lite configuration of the page: every colour is a CSS variable."""
    colors = {name: f"var(--{name})" for name in LIGHT}
    series = [f"var(--series-{index})" for index in range(len(SERIES_LIGHT))]
    ordered = [f"var(--layer-{index})" for index in range(max(layers, 1))]
    return _config(colors=colors, series=series, layers=ordered, font=PAGE_FONT, size=12, line_width=1.8) | {"background": None}


def page_variables(layers: int, *, dark: bool) -> dict[str, str]:
    """CSS variable -> colour of the dark or the light page."""
    series = SERIES_DARK if dark else SERIES_LIGHT
    return {
        **{f"--{name}": color for name, color in (DARK if dark else LIGHT).items()},
        **{f"--series-{index}": color for index, color in enumerate(series)},
        **{f"--layer-{index}": color for index, color in enumerate(layer_colors(max(layers, 1), dark=dark))},
    }


def _config(
    *, colors: dict[str, str], series: list[str], layers: list[str], font: str, size: float, line_width: float
) -> dict[str, Any]:
    muted, ink = colors["soft"], colors["ink"]
    label = {"font": font, "fontSize": size, "color": ink}
    return {
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "labelFontSize": size, "titleFontSize": size, "titleFontWeight": "normal", "labelColor": muted, "titleColor": muted,
            "gridColor": colors["grid"], "domainColor": colors["line"], "tickColor": colors["line"], "tickSize": size / 2.6,
            "labelPadding": size / 3, "titlePadding": size / 1.5, "labelOverlap": True, "labelFlush": False,
        },
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False, "titleAnchor": "end", "titleAngle": 0, "titleAlign": "left"},
        "legend": {
            "labelFontSize": size, "titleFontSize": size, "titleFontWeight": "normal", "labelColor": muted, "titleColor": muted,
            "orient": "top", "columns": 2, "offset": size * 1.7, "titlePadding": size / 2,
            "symbolStrokeWidth": line_width * 1.6, "symbolOpacity": 1, "labelLimit": 0, "symbolSize": size * 11,
        },
        "header": {"labelFontSize": size, "titleFontSize": size, "labelColor": ink, "titleColor": muted},
        "title": {"fontSize": size * 1.15, "fontWeight": 600, "color": ink, "anchor": "start", "subtitleColor": muted},
        "range": {"category": series, "ordinal": layers, "ramp": {"scheme": "viridis"}, "heatmap": {"scheme": "viridis"}},
        "line": {"strokeWidth": line_width, "strokeJoin": "round", "strokeCap": "round"},
        "rule": {"color": muted, "strokeWidth": line_width * 0.6},
        "style": {
            "faint": {"strokeWidth": line_width * 0.55, "opacity": 0.4},
            "dot": {"size": 7.5 * line_width**2, "opacity": 1},
            "emphasis": {"strokeWidth": line_width * 1.5, "color": ink},
            "emphasis-dot": {"color": ink, "size": 9 * line_width**2, "opacity": 1},
            "band": {"opacity": 0.16},
            "spectrum": {"strokeWidth": line_width, "color": series[0]},
            "spectrum-band": {"opacity": 0.17, "color": series[0]},
            "holds": {"color": series[2], "opacity": 0.13},
            "interval": {"color": ink, "strokeWidth": line_width * 1.7, "strokeCap": "round"},
            "mean": {"color": ink, "size": 26 * line_width**2, "opacity": 1},
            "seed-dot": {"color": series[0], "size": 17 * line_width**2, "strokeWidth": line_width, "opacity": 1},
            "pair": {"color": colors["faint"], "strokeWidth": line_width * 0.7, "opacity": 0.75},
            "variant-mean": {"thickness": line_width * 1.8, "size": size * 4, "orient": "horizontal"},
            "difference": {"color": series[0], "strokeWidth": line_width},
            "difference-band": {"color": series[0], "opacity": 0.18},
            "neutral-band": {"opacity": 0.14, "color": ink},
            "floor": {"color": colors["floor"], "strokeDash": [5, 4], "strokeWidth": line_width * 0.85},
            "floor-label": {**label, "color": colors["floor"], "fontStyle": "italic"},
            "reference": {"color": colors["faint"], "strokeDash": [2, 3], "strokeWidth": line_width * 0.8},
            "reference-label": {**label, "color": colors["faint"], "fontStyle": "italic"},
            "end-label": {**label, "fontWeight": 600},
        },
    }  # fmt: skip
