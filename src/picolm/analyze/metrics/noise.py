"""What rank metrics give for Gaussian noise of the same shape: without it a value of 0.8 cannot be read."""

from __future__ import annotations

import functools
import math


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


@functools.lru_cache(maxsize=256)
def _singular_value_moments(aspect: float) -> tuple[float, float]:
    """E[s] and E[s ln s] of the singular values of a large Gaussian matrix, rows / columns = `aspect` at most 1.

    Eigenvalues x = 1 + a + 2 √a cos t, density sqrt((x₊ − x)(x − x₋)) / (2π a x); in t the integrand is smooth.
    """
    import numpy

    angle = (numpy.arange(20_000) + 0.5) * (math.pi / 20_000)
    eigenvalue = 1 + aspect + 2 * math.sqrt(aspect) * numpy.cos(angle)
    density = 2 * numpy.sin(angle) ** 2 / (math.pi * eigenvalue)
    step = math.pi / 20_000
    singular = numpy.sqrt(eigenvalue)
    weight = density * step / float((density * step).sum())
    return float((singular * weight).sum()), float((singular * numpy.log(singular) * weight).sum())
