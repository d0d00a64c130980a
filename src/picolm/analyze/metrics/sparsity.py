"""How unequal the entries of a matrix are: are a few of them much larger than the rest?"""

from __future__ import annotations

import math

import torch

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric
from picolm.base.errors import Undefined


def _gini_of_gaussian_noise(shape: tuple[int, int]) -> float:
    """√2 − 1: the Gini coefficient of the half-normal distribution. Small matrices scatter around it."""
    return math.sqrt(2) - 1


@metric(
    "gini",
    needs="decomposed",
    bounds=(0.0, 1.0),
    null=_gini_of_gaussian_noise,
    invariant=("scale", "permutation", "transposition"),
)
def gini(matrix: Matrix) -> float:
    """Inequality of the magnitudes: Σ (2i − N − 1) |x|₍ᵢ₎ / (N Σ |x|), entries ascending.

    0: all entries have the same magnitude. 1 − 1/N: one entry holds everything. Invariant under scale, permutation and
    transposition. Undefined for an all-zero matrix. Source: Hurley and Rickard (2009).
    """
    ascending = matrix.magnitudes_ascending
    count, total = ascending.numel(), ascending.sum()
    if not total > 0:
        raise Undefined("all entries are zero")
    rank_weight = torch.arange(1 - count, count, 2, dtype=torch.float64)
    return max(0.0, float(rank_weight @ (ascending / total)) / count)  # equal magnitudes may round to just below 0


def _hoyer_of_gaussian_noise(shape: tuple[int, int]) -> float | None:
    """(√N − √(2N/π)) / (√N − 1), which tends to 1 − √(2/π)."""
    root = math.sqrt(shape[0] * shape[1])
    return None if root == 1 else root * (1 - math.sqrt(2 / math.pi)) / (root - 1)


@metric(
    "hoyer",
    needs="decomposed",
    bounds=(0.0, 1.0),
    null=_hoyer_of_gaussian_noise,
    invariant=("scale", "permutation", "transposition"),
)
def hoyer(matrix: Matrix) -> float:
    """Sparsity from the ratio of the L1 to the L2 norm of the entries: (√N − ‖x‖₁/‖x‖₂) / (√N − 1).

    0: all entries have the same magnitude. 1: one entry holds everything. Invariant under scale, permutation and
    transposition. Undefined for an all-zero matrix and for a single entry. Source: Hoyer (2004).
    """
    entries_MN = matrix.entries_MN
    largest = entries_MN.abs().max()
    if entries_MN.numel() == 1:
        raise Undefined("a single entry is neither sparse nor dense")
    if not largest > 0:
        raise Undefined("all entries are zero")
    scaled_MN = entries_MN / largest
    root = math.sqrt(entries_MN.numel())
    return (root - float(scaled_MN.abs().sum() / torch.linalg.vector_norm(scaled_MN))) / (root - 1)
