"""Where a curve changes its course: the two places that cut it into three straight pieces with the least squared error."""

from __future__ import annotations

import itertools

import numpy

SHORTEST = 5
"""Points that a piece must have: straight lines through fewer mean little."""


def turning_points(steps: numpy.ndarray, values: numpy.ndarray, pieces: int = 3) -> list[int]:
    """The steps at which all pieces but the first begin; fewer pieces if the curve is too short.

    Every cut is tried. It describes a curve; it is no test of whether there are phases.
    """
    pieces = min(pieces, len(steps) // SHORTEST)
    if pieces < 2:
        return []
    error = _errors_of_lines(steps.astype(float), values.astype(float))
    best = min(
        (cuts for cuts in itertools.combinations(range(SHORTEST, len(steps) - SHORTEST + 1), pieces - 1) if _far_enough(cuts)),
        key=lambda cuts: sum(error[first, last] for first, last in itertools.pairwise([0, *cuts, len(steps)])),
    )
    return [int(steps[cut]) for cut in best]


def _far_enough(cuts: tuple[int, ...]) -> bool:
    return all(second - first >= SHORTEST for first, second in itertools.pairwise(cuts))


def _errors_of_lines(x: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """[first, last]: squared error of the best straight line through points first to last - 1."""
    sums = {
        name: numpy.concatenate([[0.0], numpy.cumsum(values)]) for name, values in _products(x - x.mean(), y - y.mean()).items()
    }
    error = numpy.full((len(x) + 1, len(x) + 1), numpy.inf)
    for first in range(len(x)):
        for last in range(first + 2, len(x) + 1):
            n = last - first
            part = {name: values[last] - values[first] for name, values in sums.items()}
            xx, yy, xy = (
                part["xx"] - part["x"] ** 2 / n,
                part["yy"] - part["y"] ** 2 / n,
                part["xy"] - part["x"] * part["y"] / n,
            )
            error[first, last] = yy - xy**2 / xx
    return error


def _products(x: numpy.ndarray, y: numpy.ndarray) -> dict[str, numpy.ndarray]:
    return {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}
