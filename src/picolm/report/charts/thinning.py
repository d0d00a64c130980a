"""Fewer points that tell the same: bins along the axis with mean and range, or every k-th checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas

from picolm.report.charts.axes import Progress, progress_position


def binned(
    frame: pandas.DataFrame, column: str, progress: Progress, *, by: Sequence[str] = (), points: int = 240
) -> pandas.DataFrame:
    """At most `points` rows per series: mean, `low` and `high` of `column` in bins that are equally wide on the axis.

    A bin's step and tokens are those of its last row. With few rows every row is its own bin.
    """
    kept = frame.dropna(subset=[column, progress.column])
    if kept.empty:
        return pandas.DataFrame(columns=[*by, "step", "tokens", column, "low", "high", "rows"])
    groups = kept.groupby(list(by), sort=False, dropna=False) if by else [((), kept)]
    return pandas.concat([_bin_one(part, column, progress, points, by) for _, part in groups], ignore_index=True)


def _bin_one(frame: pandas.DataFrame, column: str, progress: Progress, points: int, by: Sequence[str]) -> pandas.DataFrame:
    frame = frame.sort_values(progress.column, kind="stable")
    if len(frame) <= points:
        cell = numpy.arange(len(frame))
    else:
        place = progress_position(progress, frame[progress.column])
        edges = numpy.linspace(place[0], place[-1], points + 1)[1:-1]
        cell = numpy.searchsorted(edges, place, side="right")
    grouped = frame.groupby(cell, sort=True)
    summary = grouped[column].agg(["mean", "min", "max", "size"])
    ends = grouped[[*by, "step", "tokens"]].last()
    values = summary.rename(columns={"mean": column, "min": "low", "max": "high", "size": "rows"})
    return pandas.concat([ends, values], axis=1).reset_index(drop=True)


def spaced_steps(steps: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the steps, first and last among them, evenly spaced by rank."""
    ordered = sorted(set(steps))
    if len(ordered) <= limit:
        return ordered
    chosen = numpy.unique(numpy.linspace(0, len(ordered) - 1, limit).round().astype(int))
    return [ordered[index] for index in chosen]
