"""Single places of the spectrum: measured at several of them, the whole curve of singular values over training can be drawn."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from picolm.analyze.metrics.contract import metric
from picolm.analyze.metrics.noise import singular_value_of_noise
from picolm.base.errors import Undefined

Place = Annotated[float, Field(ge=0, le=1)]
"""Share of the way from the largest singular value (0) to the smallest (1)."""


@metric(
    "singular_value",
    needs="singular_values",
    bounds=(0.0, float("inf")),
    invariant=("permutation", "rotation", "transposition"),
)
def singular_value(sigma_R: Tensor, *, at: Place = 0.0) -> float:
    """The singular value at a place of the spectrum, `at` = 0 the largest, 0.5 the median, 1 the smallest.

    Between two neighbours it is interpolated linearly. Proportional to scale; invariant under rotation and transposition.
    """
    position = at * (sigma_R.numel() - 1)
    upper = int(position)
    lower = min(upper + 1, sigma_R.numel() - 1)
    return float(sigma_R[upper] + (position - upper) * (sigma_R[lower] - sigma_R[upper]))


def _of_noise(shape: tuple[int, int], *, at: float) -> float:
    return singular_value_of_noise(shape, at)


@metric(
    "relative_singular_value",
    needs="singular_values",
    bounds=(0.0, float("inf")),
    null=_of_noise,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
def relative_singular_value(sigma_R: Tensor, *, at: Place = 0.0) -> float:
    """The singular value at a place of the spectrum over the root mean square of all: its shape without its size.

    `at` as for `singular_value`. 1 everywhere: all directions carry equal weight. Invariant under scale, rotation and
    transposition. Undefined for an all-zero matrix.
    """
    if not sigma_R.any():
        raise Undefined("all singular values are zero")
    scaled_R = sigma_R / sigma_R.max()
    return singular_value(scaled_R, at=at) / float(scaled_R.square().mean().sqrt())
