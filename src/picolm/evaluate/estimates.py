"""Means and ratios with their standard errors. Closed forms only: nothing here draws a random number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_LOSS = 700.0
"""Nats per token whose exponential is still a number."""


class Estimate(NamedTuple):
    """A number, how far it may be off, and how many observations it rests on."""

    value: float | None
    standard_error: float | None
    n: int


def mean_of(values: ArrayLike, clusters: Sequence[object] | None = None) -> Estimate:
    """The mean with its standard error; with `clusters`, values of one cluster may depend on each other.

    Without clusters: s / sqrt(n), s with n - 1 in the denominator. With G clusters:
    sqrt(G / (G - 1) * sum over clusters of (sum of deviations)^2) / n. Undefined error for one observation or cluster.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size:
        return Estimate(None, None, 0)
    mean = float(sample.mean())
    deviations = sample - mean if clusters is None else _sums_by_cluster(sample - mean, clusters)
    return Estimate(mean, _error_of_sum(deviations, sample.size), int(sample.size))


def ratio_of(numerators: ArrayLike, denominators: ArrayLike) -> Estimate:
    """sum of numerators / sum of denominators, each pair being one independent observation, such as a document.

    Standard error by linearisation: sqrt(G / (G - 1) * sum (a_i - r b_i)^2) / sum b_i.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    total = float(below.sum())
    if total <= 0:
        return Estimate(None, None, len(below))
    ratio = float(above.sum()) / total
    return Estimate(ratio, _error_of_sum(above - ratio * below, total), len(below))


def mean_of_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates; n adds up."""
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    if not values:
        return Estimate(None, None, 0)
    errors = [estimate.standard_error for estimate in estimates]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(each**2 for each in known)) / len(values) if len(known) == len(values) else None
    return Estimate(sum(values) / len(values), error, sum(estimate.n for estimate in estimates))


def exponential_of(estimate: Estimate) -> Estimate:
    """exp of an estimate, its error to first order: perplexity from loss per token. None where exp overflows."""
    if estimate.value is None or estimate.value > LARGEST_LOSS:
        return Estimate(None, None, estimate.n)
    value = math.exp(estimate.value)
    return Estimate(value, None if estimate.standard_error is None else value * estimate.standard_error, estimate.n)


def _sums_by_cluster(values: NDArray[np.float64], clusters: Sequence[object]) -> NDArray[np.float64]:
    number_of = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    return np.bincount([number_of[cluster] for cluster in clusters], weights=values).astype(np.float64)


def _error_of_sum(deviations: NDArray[np.float64], total: float) -> float | None:
    count = len(deviations)
    if count < 2:
        return None
    return math.sqrt(count / (count - 1) * float(np.square(deviations).sum())) / total
