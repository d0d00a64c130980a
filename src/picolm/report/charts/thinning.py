"""Fewer points that tell the same: bins along the axis with mean and range, or every k-th checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pandas

from picolm.report.charts.axes import Progress, progress_position


def binned(
    frame: pandas.DataFrame, column: str, progress: Progress, *, by: Sequence[str] = (), points: int = 240
) -> pandas.DataFrame:
    """At most `points` rows per series: mean, `low` and `high` of `column` in bins that are equally wide on the axis.

    A bin's step and tokens are those of its last row; all series share the bins, numbered by `place`. With few rows every
    place is its own bin.
    """
    kept = frame.dropna(subset=[column, progress.column])
    if kept.empty:
        return pandas.DataFrame(columns=[*by, "place", "step", "tokens", column, "low", "high", "rows"])
    kept = kept.sort_values(progress.column, kind="stable")
    kept = kept.assign(place=_places(kept[progress.column].to_numpy(dtype=float), progress, points))
    grouped = kept.groupby([*by, "place"], sort=True, dropna=False)
    summary = grouped[column].agg(["mean", "min", "max", "size"])
    ends = grouped[["step", "tokens"]].last()
    values = summary.rename(columns={"mean": column, "min": "low", "max": "high", "size": "rows"})
    return pandas.concat([ends, values], axis=1).reset_index()


def _places(values: Any, progress: Progress, points: int) -> Any:
    different, index = numpy.unique(values, return_inverse=True)
    if len(different) <= points:
        return index
    position = progress_position(progress, values)
    edges = numpy.linspace(position[0], position[-1], points + 1)[1:-1]
    return numpy.searchsorted(edges, position, side="right")


def spaced_steps(steps: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the steps, first and last among them, evenly spaced by rank."""
    ordered = sorted(set(steps))
    if len(ordered) <= limit:
        return ordered
    chosen = numpy.unique(numpy.linspace(0, len(ordered) - 1, limit).round().astype(int))
    return [ordered[index] for index in chosen]
