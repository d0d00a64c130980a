"""How many directions a matrix uses, and how evenly: everything here is a function of the singular values."""

from __future__ import annotations

import torch
from torch import Tensor

from picolm.analyze.matrix import Matrix, rank_tolerance
from picolm.analyze.metrics.contract import metric
from picolm.analyze.metrics.noise import effective_rank_of_noise, per_of_noise
from picolm.base.errors import Undefined

PARAMETER_LIKE = ("weights", "gradients", "updates", "first_order")


@metric("per", needs="singular_values", accepts=PARAMETER_LIKE, bounds=(0.0, 1.0), null=per_of_noise)
def proportional_effective_rank(sigma_R: Tensor) -> float:
    """Share of directions in use: exp(entropy of the singular-value shares) / number of singular values.

    1.0: all directions carry equal weight. 1 / min(M, N): one direction carries everything. Invariant under scale,
    rotation and transposition. Undefined for an all-zero matrix. Source: Diehl Martinez et al. (2024).
    """
    return effective_rank(sigma_R) / sigma_R.numel()


@metric("effective_rank", needs="singular_values", accepts=PARAMETER_LIKE, null=effective_rank_of_noise)
def effective_rank(sigma_R: Tensor) -> float:
    """Number of directions in use: exp(−Σ p ln p) with p = σ / Σσ and 0 ln 0 = 0.

    From 1 to min(M, N). Invariant under scale, rotation and transposition. Undefined for an all-zero matrix.
    Source: Roy and Vetterli (2007).
    """
    if not sigma_R.any():
        raise Undefined("all singular values are zero")
    scaled_R = sigma_R / sigma_R.max()
    share_R = scaled_R / scaled_R.sum()
    return float(torch.special.entr(share_R).sum().exp())


@metric("condition_number", needs="decomposed", bounds=(1.0, float("inf")))
def condition_number(matrix: Matrix) -> float:
    """Largest over smallest singular value: how much a small change of the input may be amplified.

    1: all directions are treated alike. Invariant under scale, rotation and transposition. Undefined for an all-zero
    matrix and for one that is singular in float64; the note then gives the numerical rank.
    """
    sigma_R = matrix.singular_values_R
    if not sigma_R[0] > 0:
        raise Undefined("all singular values are zero")
    if matrix.rank < sigma_R.numel():
        raise Undefined(f"singular: numerical rank {matrix.rank} of {sigma_R.numel()}")
    return float(sigma_R[0] / sigma_R[-1])


@metric("condition_number_above_tolerance", needs="decomposed", bounds=(1.0, float("inf")))
def condition_number_above_tolerance(matrix: Matrix) -> float:
    """Largest singular value over the smallest one above max(M, N) · 2⁻²³ · largest: directions float32 can resolve.

    The number to use for circuits, which have a lower rank than size by construction. Undefined for an all-zero matrix.
    """
    sigma_R = matrix.singular_values_R
    if not sigma_R[0] > 0:
        raise Undefined("all singular values are zero")
    above_R = sigma_R[sigma_R > rank_tolerance(sigma_R, matrix.shape)]
    return float(sigma_R[0] / above_R[-1])
