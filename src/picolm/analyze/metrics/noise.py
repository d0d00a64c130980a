"""What rank metrics give for Gaussian noise of the same shape: without it a value of 0.8 cannot be read."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


def per_of_noise(shape: tuple[int, int]) -> float:
    """Proportional effective rank of a large Gaussian matrix of this aspect ratio, by the Marchenko-Pastur law."""
    return effective_rank_of_noise(shape) / min(shape)


def effective_rank_of_noise(shape: tuple[int, int]) -> float:
    """Effective rank of a large Gaussian matrix of this shape, by the Marchenko-Pastur law.

    With s the singular values, k = min(M, N): entropy of shares = ln(k E[s]) − E[s ln s] / E[s].
    """
    few, many = sorted(shape)
    if few == 1:
        return 1.0
    mean, mean_log = _singular_value_moments(few / many)
    return math.exp(math.log(few * mean) - mean_log / mean)


@functools.lru_cache(maxsize=1024)
def singular_value_of_noise(shape: tuple[int, int], at: float) -> float:
    """The singular value at a place (0 largest, 1 smallest) of a Gaussian matrix, over the root mean square of all.

    The law of a large matrix, read where the directions of this one stand: the first of k after the share 1 / 2k of the law,
    the last before it, so that neither is taken to lie on the edge.
    """
    few, many = sorted(shape)
    if few == 1:
        return 1.0
    import numpy

    singular_R, weight_R = _singular_values(few / many)
    passed_R = numpy.cumsum(weight_R) - weight_R / 2
    value = numpy.interp((at * (few - 1) + 0.5) / few, passed_R, singular_R)
    return float(value / math.sqrt(float((singular_R**2 * weight_R).sum())))


@functools.lru_cache(maxsize=256)
def _singular_value_moments(aspect: float) -> tuple[float, float]:
    """E[s] and E[s ln s] of the singular values of a large Gaussian matrix, rows / columns = `aspect` at most 1."""
    import numpy

    singular_R, weight_R = _singular_values(aspect)
    return float((singular_R * weight_R).sum()), float((singular_R * numpy.log(singular_R) * weight_R).sum())


def _singular_values(aspect: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Singular values of a large Gaussian matrix on a fine grid, largest first, and the share of each.

    Eigenvalues x = 1 + a + 2 √a cos t, density sqrt((x₊ − x)(x − x₋)) / (2π a x); in t the integrand is smooth.
    """
    import numpy

    angle_R = (numpy.arange(20_000) + 0.5) * (math.pi / 20_000)
    eigenvalue_R = 1 + aspect + 2 * math.sqrt(aspect) * numpy.cos(angle_R)
    density_R = 2 * numpy.sin(angle_R) ** 2 / (math.pi * eigenvalue_R)
    return numpy.sqrt(eigenvalue_R), density_R / float(density_R.sum())
