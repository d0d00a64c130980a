"""How alike two sets of activations are. Rows are the same samples in both, columns are neurons, which may differ."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from picolm.analyze.matrix import Matrix, squared_inner_products
from picolm.analyze.metrics.contract import metric
from picolm.base.errors import Undefined

Shape = tuple[int, int]


def _cka_of_noise(x_shape: Shape, y_shape: Shape, *, debiased: bool) -> float:
    """0 when debiased; else ≈ √(pq / ((n + p)(n + q))) for independent isotropic samples."""
    (n, p), (_, q) = x_shape, y_shape
    return 0.0 if debiased else math.sqrt(p * q / ((n + p) * (n + q)))


def _cka_estimator(*, debiased: bool) -> str:
    return "unbiased HSIC (Song et al. 2012)" if debiased else "biased HSIC"


@metric(
    "cka",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(-1.0, 1.0),
    null=_cka_of_noise,
    estimator=_cka_estimator,
)
def cka(x: Matrix, y: Matrix, *, debiased: bool = False) -> float:
    """Linear centred kernel alignment: ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), columns centred.

    1: equal up to rotation and scale. The biased form, which the paper uses, rises with neurons per sample even for
    unrelated data; `debiased` replaces each term by its unbiased estimate (may fall below 0) and is the one to compare
    across sizes. Invariant under rotation, isotropic scale and shift. Undefined where a side has no variance.
    Sources: Kornblith et al. (2019), Song et al. (2012), Murphy et al. (2024).
    """
    check_samples_match(x, y)
    x_SM, y_SN = unit_scale(x.centred_SR), unit_scale(y.centred_SR)
    if debiased:
        own = unbiased_hsic(x_SM, x_SM) * unbiased_hsic(y_SN, y_SN)
        if not own > 0:
            raise Undefined("the unbiased estimate of a side's own variance is not positive")
        return unbiased_hsic(x_SM, y_SN) / math.sqrt(own)
    own = squared_inner_products(x_SM, x_SM) * squared_inner_products(y_SN, y_SN)
    return squared_inner_products(x_SM, y_SN) / math.sqrt(own)


def unbiased_hsic(x_SM: Tensor, y_SN: Tensor) -> float:
    """n(n − 3) times HSIC₁ of linear kernels, from centred samples, without a matrix of samples by samples.

    ‖XᵀY‖² − n/(n − 2) Σ rᵢsᵢ + Σr Σs / ((n − 1)(n − 2)), r and s the squared lengths of the rows.
    """
    n = x_SM.shape[0]
    if n < 4:
        raise Undefined(f"the unbiased estimate needs at least 4 samples, not {n}")
    r_S, s_S = x_SM.square().sum(dim=1), y_SN.square().sum(dim=1)
    correction = n / (n - 2) * float(r_S @ s_S) - float(r_S.sum() * s_S.sum()) / ((n - 1) * (n - 2))
    return squared_inner_products(x_SM, y_SN) - correction


class Canonical(NamedTuple):
    """Canonical correlations, largest first, and the canonical directions of both sides in sample space."""

    correlations_R: Tensor
    x_directions_SR: Tensor
    y_directions_SR: Tensor


def canonical(x: Matrix, y: Matrix) -> Canonical:
    """Canonical correlation analysis from orthonormal bases of the centred data; no covariance is inverted."""
    check_samples_match(x, y)
    check_variance(x.centred_SR)
    check_variance(y.centred_SR)
    x_SR, y_SR = x.basis.directions_SR, y.basis.directions_SR
    left_RR, correlations_R, right_RR = torch.linalg.svd(x_SR.T @ y_SR, full_matrices=False)
    return Canonical(correlations_R.clamp(max=1.0), x_SR @ left_RR, y_SR @ right_RR.T)


@metric("cca", needs="decomposed_pair", accepts=("activations",), bounds=(0.0, 1.0))
def cca(x: Matrix, y: Matrix) -> float:
    """Mean canonical correlation.

    Invariant under any invertible linear map of either side. With samples not well above neurons it tends to 1 for
    unrelated data. Directions below the rank tolerance are dropped. Source: Hotelling (1936).
    """
    return float(canonical(x, y).correlations_R.mean())


@metric("pwcca", needs="decomposed_pair", accepts=("activations",), bounds=(0.0, 1.0))
def pwcca(x: Matrix, y: Matrix, *, direction: Literal["lower_rank", "x", "y"] = "lower_rank") -> float:
    """Canonical correlations weighted by how much of one side's neurons each canonical direction h accounts for.

    Σ αᵢ ρᵢ with αᵢ ∝ Σⱼ |⟨hᵢ, neuronⱼ⟩|. The weights come from one side: `x` this one, `y` the one compared with,
    `lower_rank` (default, x on a tie) the side with fewer directions. Undefined where a side has no variance.
    Source: Morcos et al. (2018).
    """
    found = canonical(x, y)
    from_x = direction == "x" or (direction == "lower_rank" and x.basis.sigma_R.numel() <= y.basis.sigma_R.numel())
    directions_SR = found.x_directions_SR if from_x else found.y_directions_SR
    neurons_SN = x.centred_SN if from_x else y.centred_SN
    weight_R = (directions_SR.T @ unit_scale(neurons_SN)).abs().sum(dim=1)
    return float(weight_R @ found.correlations_R / weight_R.sum())


def unit_scale(centred_SN: Tensor) -> Tensor:
    """The samples divided by their largest magnitude, so that fourth powers neither overflow nor vanish."""
    check_variance(centred_SN)
    return centred_SN / centred_SN.abs().max()


def check_variance(centred_SN: Tensor) -> None:
    """Undefined if every neuron is constant."""
    if not centred_SN.any():
        raise Undefined("one side has no variance")


def check_samples_match(x: Matrix, y: Matrix) -> None:
    """Undefined unless both have the same number of samples."""
    if x.shape[0] != y.shape[0]:
        raise Undefined(f"{x.shape[0]} samples cannot be compared with {y.shape[0]}")
