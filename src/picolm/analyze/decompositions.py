"""Singular values and bases in float64, each by the cheapest way that is exact enough, or Undefined."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from picolm.base.errors import Undefined

FLOAT32_EPSILON = 2.0**-23
"""Relative spacing of the numbers training works with: the unit of the rank tolerance."""

GRAM_IS_EXACT = 2.5e-7
"""Smallest over largest eigenvalue of XXᵀ above which its roots are singular values to 1e-10: condition numbers up to 2000."""


class Product(NamedTuple):
    """A matrix kept as left times right, with few columns in between: a circuit of one head, for example."""

    left_MR: Tensor
    right_RN: Tensor


class Spectrum(NamedTuple):
    """Singular values, largest first, and how they were computed."""

    sigma_R: Tensor
    how: str


class Directions(NamedTuple):
    """Orthonormal directions in sample space (samples, rank) and their singular values."""

    directions_SR: Tensor
    sigma_R: Tensor


def spectrum(entries_MN: Tensor) -> Spectrum:
    """All min(rows, columns) singular values of a float64 matrix.

    Of a long matrix they are the roots of the eigenvalues of the small one of XXᵀ and XᵀX where those are far enough from
    rounding, else the singular values of the triangle of its QR decomposition.
    """
    wide_MN = entries_MN if entries_MN.shape[0] <= entries_MN.shape[1] else entries_MN.T
    few, many = wide_MN.shape
    if 2 * many < 3 * few or few < 2:
        return Spectrum(singular_values(entries_MN), "svd")
    largest = wide_MN.abs().max()
    if largest > 0:
        scaled_MN = wide_MN / largest
        eigenvalues_R = torch.linalg.eigvalsh(scaled_MN @ scaled_MN.T).flip(0)
        if eigenvalues_R[-1] > GRAM_IS_EXACT * eigenvalues_R[0]:
            return Spectrum(largest * eigenvalues_R.sqrt(), "eigenvalues")
    return Spectrum(singular_values(torch.linalg.qr(wide_MN.T, mode="r").R), "qr and svd")


def spectrum_of_product(product: Product) -> Spectrum:
    """The singular values of a product, from the small matrix between the triangles of thin QR decompositions.

    Those beyond the inner width are exactly zero.
    """
    left_RR = torch.linalg.qr(product.left_MR, mode="r").R
    right_RR = torch.linalg.qr(product.right_RN.T, mode="r").R
    inner_R = singular_values(left_RR @ right_RR.T)
    sigma_R = torch.zeros(min(product.left_MR.shape[0], product.right_RN.shape[1]), dtype=torch.float64)
    sigma_R[: inner_R.numel()] = inner_R
    return Spectrum(sigma_R, "svd of factors")


def basis_of_full_rank(columns_SN: Tensor, tolerance: float) -> Tensor | None:
    """Orthonormal basis of the columns by QR, if every singular value surely exceeds `tolerance` times the largest.

    Sure, because 1 / ‖R⁻¹‖ in the Frobenius norm is below the smallest singular value and ‖R‖ above the largest.
    """
    if columns_SN.shape[0] < columns_SN.shape[1]:
        return None
    basis_SR, triangle_RR = torch.linalg.qr(columns_SN)
    if not triangle_RR.diagonal().all():
        return None
    identity_RR = torch.eye(triangle_RR.shape[0], dtype=torch.float64)
    inverse_RR = torch.linalg.solve_triangular(triangle_RR, identity_RR, upper=True)
    smallest, largest = 1 / torch.linalg.vector_norm(inverse_RR), torch.linalg.vector_norm(triangle_RR)
    return basis_SR if smallest > tolerance * largest else None


def rank_tolerance(sigma_R: Tensor, shape: tuple[int, int]) -> float:
    """max(rows, columns) x 2^-23 x largest singular value: below it float32 data cannot tell a direction from rounding."""
    return float(max(shape) * FLOAT32_EPSILON * sigma_R.max()) if sigma_R.numel() else 0.0


ROUNDING_SHARE = 0.2123
"""Root mean square of the error of rounding a number, over the spacing of numbers of its size: √(3 / (8 ln 2) / 12)."""


def rounding_floor(shape: tuple[int, int], root_mean_square: float, epsilon: float) -> float:
    """Twice the largest singular value that the rounding of the entries has by itself: directions below may be nothing else.

    Errors of size `ROUNDING_SHARE` epsilon |entry| are as good as independent, so their largest singular value is that times
    √rows + √columns.
    """
    return 2 * ROUNDING_SHARE * epsilon * root_mean_square * (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def singular_values(entries_MN: Tensor) -> Tensor:
    """Singular values by the general method; Undefined if it does not converge."""
    try:
        sigma_R: Tensor = torch.linalg.svdvals(entries_MN)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise Undefined("the singular value decomposition did not converge") from error
    return sigma_R


def decompose(entries_MN: Tensor) -> Directions:
    """Left singular vectors and singular values; Undefined if the method does not converge."""
    try:
        left_MR, sigma_R, _ = torch.linalg.svd(entries_MN, full_matrices=False)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise Undefined("the singular value decomposition did not converge") from error
    return Directions(left_MR, sigma_R)
