"""How many directions a matrix uses, and how evenly: everything here is a function of the singular values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from picolm.analyze.decompositions import rank_tolerance
from picolm.analyze.kernels import squared_inner_products
from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric
from picolm.analyze.metrics.noise import effective_rank_of_noise, per_of_noise
from picolm.base.errors import Undefined

PARAMETER_LIKE = ("weights", "gradients", "updates", "first_order")


def rank_remark(matrix: Matrix) -> str:
    """Says so where the smallest singular values are rounding, and what the numerical rank is without them."""
    size = matrix.singular_values_R.numel()
    if matrix.is_product_of_fewer_columns:
        return f"rank at most {matrix.inner_width} of {size} by construction"
    if matrix.numerical_rank == size:
        return ""
    return (
        f"numerical rank {matrix.numerical_rank} of {size} in {matrix.stored_type}: singular values below "
        f"{matrix.rounding_floor:.1e} of the largest may be rounding"
    )


@metric(
    "per",
    needs="singular_values",
    accepts=PARAMETER_LIKE,
    bounds=(0.0, 1.0),
    null=per_of_noise,
    remark=rank_remark,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
def proportional_effective_rank(sigma_R: Tensor) -> float:
    """Share of directions in use: exp(entropy of the singular-value shares) / number of singular values.

    1.0: all directions carry equal weight. 1 / min(M, N): one direction carries everything. Invariant under scale,
    rotation and transposition. Undefined for an all-zero matrix. Source: Diehl Martinez et al. (2024).
    """
    return effective_rank(sigma_R) / sigma_R.numel()


@metric(
    "effective_rank",
    needs="singular_values",
    accepts=PARAMETER_LIKE,
    null=effective_rank_of_noise,
    remark=rank_remark,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
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


@metric(
    "rankme",
    needs="singular_values",
    accepts=("activations",),
    null=effective_rank_of_noise,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
def rankme(sigma_R: Tensor) -> float:
    """Effective rank of activations: exp(−Σ p ln p) with p = σ / Σσ + 10⁻⁷, on the singular values, not their squares.

    From 1 to min(samples, width); not centred. Compare only at equal numbers of samples. Undefined for an all-zero
    matrix. Source: Garrido et al. (2023).
    """
    if not sigma_R.any():
        raise Undefined("all singular values are zero")
    share_R = sigma_R / sigma_R.sum() + 1e-7
    return float((-(share_R * share_R.log()).sum()).exp())


def _stable_rank_of_noise(shape: tuple[int, int]) -> float:
    """MN / (√M + √N)², since the largest singular value of a large Gaussian matrix is √M + √N."""
    return shape[0] * shape[1] / (math.sqrt(shape[0]) + math.sqrt(shape[1])) ** 2


@metric(
    "stable_rank",
    needs="singular_values",
    null=_stable_rank_of_noise,
    remark=rank_remark,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
def stable_rank(sigma_R: Tensor) -> float:
    """Σσ² over the largest σ²: a number of directions that hardly sees small ones. From 1 to min(M, N).

    Invariant under scale, rotation and transposition. Undefined for an all-zero matrix.
    Source: Rudelson and Vershynin (2007).
    """
    if not sigma_R.any():
        raise Undefined("all singular values are zero")
    return float((sigma_R / sigma_R.max()).square().sum())


def _participation_of_noise(shape: tuple[int, int], *, centred: bool) -> float | None:
    """MN / (M + N + 1), from E tr(XᵀX) = MN and E tr(XᵀXXᵀX) = MN(M + N + 1); a centred matrix has a row less."""
    rows = shape[0] - 1 if centred else shape[0]
    return rows * shape[1] / (rows + shape[1] + 1) if rows > 0 else None


@metric("participation_ratio", needs="decomposed", null=_participation_of_noise, invariant=("scale",))
def participation_ratio(matrix: Matrix, *, centred: bool = False) -> float:
    """(Σσ²)² / Σσ⁴: number of directions that share the variance; needs no decomposition. From 1 to min(M, N).

    `centred` removes column means first, which makes it the participation ratio of principal components: right for
    activations. Invariant under scale and rotation, and, not centred, under transposition. Undefined for an all-zero
    (or constant) matrix. Source: Gao et al. (2017).
    """
    entries_MN = matrix.centred_SR if centred else matrix.entries_MN
    largest = entries_MN.abs().max()
    if not largest > 0:
        raise Undefined("no column varies" if centred else "all entries are zero")
    scaled_MN = entries_MN / largest
    return float(scaled_MN.square().sum() ** 2) / squared_inner_products(scaled_MN, scaled_MN)


@metric(
    "condition_number",
    needs="decomposed",
    bounds=(1.0, float("inf")),
    remark=rank_remark,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
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


@metric(
    "condition_number_above_tolerance",
    needs="decomposed",
    bounds=(1.0, float("inf")),
    remark=rank_remark,
    invariant=("scale", "permutation", "rotation", "transposition"),
)
def condition_number_above_tolerance(matrix: Matrix) -> float:
    """Largest singular value over the smallest one above max(M, N) · 2⁻²³ · largest: directions float32 can resolve.

    The number to use for circuits, which have a lower rank than size by construction. Undefined for an all-zero matrix.
    """
    sigma_R = matrix.singular_values_R
    if not sigma_R[0] > 0:
        raise Undefined("all singular values are zero")
    above_R = sigma_R[sigma_R > rank_tolerance(sigma_R, matrix.shape)]
    return float(sigma_R[0] / above_R[-1])
