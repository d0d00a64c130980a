"""Which rows of an analysis are places of one spectrum: drawn together as a curve, not one by one."""

from __future__ import annotations

import json
from typing import Any

import pandas

PLACE_METRICS = ("relative_singular_value", "singular_value")
"""Metrics whose option `at` is a place of the spectrum, from 0 (the largest singular value) to 1 (the smallest)."""


def spectrum_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows that are places of a spectrum, with their `place`."""
    chosen = rows[rows["metric"].isin(PLACE_METRICS)]
    return chosen.assign(place=[_place(options) for options in chosen["options"]])


def other_rows(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows that are not."""
    return rows[~rows["metric"].isin(PLACE_METRICS)]


def _place(options: Any) -> float:
    """The place that a row's options name; where they name none it is the metric's default, the largest singular value."""
    try:
        return float(json.loads(options or "{}").get("at", 0.0))
    except (ValueError, TypeError, AttributeError):
        return float("nan")
