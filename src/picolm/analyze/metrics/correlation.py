"""How alike two sets of activations are, by their canonical correlations. Rows are the same samples in both."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import ROWS_PERMUTED, metric
from picolm.analyze.metrics.similarity import check_samples_match
from picolm.base.errors import Undefined


class Canonical(NamedTuple):
    """Canonical correlations, largest first, and the canonical directions of both sides in sample space."""

    correlations_R: Tensor
    x_directions_SR: Tensor
    y_directions_SR: Tensor


def canonical(x: Matrix, y: Matrix) -> Canonical:
    """Canonical correlation analysis from orthonormal bases of the centred data; no covariance is inverted."""
    check_samples_match(x, y)
    x_SR, y_SR = x.basis_SR, y.basis_SR
    left_RR, correlations_R, right_RR = torch.linalg.svd(x_SR.T @ y_SR, full_matrices=False)
    return Canonical(correlations_R.clamp(max=1.0), x_SR @ left_RR, y_SR @ right_RR.T)


@metric(
    "cca",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(0.0, 1.0),
    null=ROWS_PERMUTED,
    invariant=("scale", "permutation", "rotation", "shift"),
)
def cca(x: Matrix, y: Matrix) -> float:
    """Mean canonical correlation.

    Invariant under any invertible linear map of either side. With samples not well above neurons it tends to 1 for
    unrelated data. Directions below the rank tolerance are dropped. Source: Hotelling (1936).
    """
    return float(canonical(x, y).correlations_R.mean())


@metric(
    "pwcca",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(0.0, 1.0),
    null=ROWS_PERMUTED,
    invariant=("scale", "permutation", "shift"),
)
def pwcca(x: Matrix, y: Matrix, *, direction: Literal["lower_rank", "x", "y"] = "lower_rank") -> float:
    """Canonical correlations weighted by how much of one side's neurons each canonical direction h accounts for.

    Σ αᵢ ρᵢ with αᵢ ∝ Σⱼ |⟨hᵢ, neuronⱼ⟩|. The weights come from one side: `x` this one, `y` the one compared with,
    `lower_rank` (default, x on a tie) the side with fewer directions. Undefined where a side has no variance.
    Source: Morcos et al. (2018).
    """
    found = canonical(x, y)
    from_x = direction == "x" or (direction == "lower_rank" and x.basis_SR.shape[1] <= y.basis_SR.shape[1])
    directions_SR = found.x_directions_SR if from_x else found.y_directions_SR
    neurons_SN = x.centred_SN if from_x else y.centred_SN
    weight_R = (directions_SR.T @ (neurons_SN / neurons_SN.abs().max())).abs().sum(dim=1)
    return float(weight_R @ found.correlations_R / weight_R.sum())


@metric(
    "svcca",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(0.0, 1.0),
    null=ROWS_PERMUTED,
    invariant=("scale", "permutation", "rotation", "shift"),
)
def svcca(x: Matrix, y: Matrix, *, variance_share: float = 0.99) -> float:
    """Mean canonical correlation of the leading directions that hold `variance_share` of each side's variance.

    Invariant under rotation, isotropic scale and shift. Depends on the threshold. Undefined where a side has no
    variance. Source: Raghu et al. (2017).
    """
    if not 0 < variance_share <= 1:
        raise Undefined(f"variance_share = {variance_share} is not a share")
    check_samples_match(x, y)
    x_SR, y_SR = (_leading_directions(side, variance_share) for side in (x, y))
    return float(torch.linalg.svdvals(x_SR.T @ y_SR).clamp(max=1.0).mean())


def _leading_directions(side: Matrix, variance_share: float) -> Tensor:
    directions_SR, sigma_R = side.principal
    held_R = (sigma_R / sigma_R[0]).square().cumsum(0)
    enough_R = held_R >= variance_share * held_R[-1] * (1 - 1e-12)  # a share of 1 keeps all in spite of rounding
    return directions_SR[:, : int(enough_R.int().argmax()) + 1]
