"""How alike two sets of activations are, by shape and by neighbourhood. Rows are the same samples in both."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import ROWS_PERMUTED, metric
from picolm.analyze.metrics.similarity import check_samples_match
from picolm.base.errors import Undefined


@metric(
    "procrustes_angle",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(0.0, math.pi / 2),
    null=ROWS_PERMUTED,
    invariant=("scale", "permutation", "rotation", "shift"),
)
def procrustes_angle(x: Matrix, y: Matrix) -> float:
    """Angle in radians between two point clouds after the best rotation: arccos ‖XᵀY‖₊, columns centred, sizes one.

    ‖·‖₊ is the sum of singular values. 0: equal up to rotation, scale and shift; π/2: nothing in common. A true
    distance. Undefined where a side has no variance. Sources: Williams et al. (2021), Ding et al. (2021).
    """
    check_samples_match(x, y)
    x_SM, y_SN = (_unit_norm(side.unit_SR) for side in (x, y))
    return math.acos(min(1.0, float(torch.linalg.svdvals(x_SM.T @ y_SN).sum())))


def _unit_norm(centred_SN: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(centred_SN)
    return centred_SN / size


def _knn_of_noise(x_shape: tuple[int, int], y_shape: tuple[int, int], *, neighbours: int) -> float:
    """k / (n - 1): the chance that one sample is among the k nearest of another."""
    return neighbours / (x_shape[0] - 1)


@metric(
    "mutual_knn",
    needs="pair",
    accepts=("activations",),
    bounds=(0.0, 1.0),
    null=_knn_of_noise,
    invariant=("scale", "permutation", "rotation"),
)
def mutual_knn(x_SM: Tensor, y_SN: Tensor, *, neighbours: int = 10) -> float:
    """Share of each sample's nearest neighbours, by cosine, that both sides agree on; mean over samples.

    1: the same neighbourhoods. Looks at local shape only. Ties go to the earlier sample. Undefined unless there are more
    samples than neighbours, or if a sample is all zero. Source: Huh et al. (2024).
    """
    samples = x_SM.shape[0]
    if samples != y_SN.shape[0]:
        raise Undefined(f"{samples} samples cannot be compared with {y_SN.shape[0]}")
    if not 1 <= neighbours < samples:
        raise Undefined(f"{neighbours} neighbours need at least {neighbours + 1} samples, not {samples}")
    both = _neighbour_sets(x_SM, neighbours) & _neighbour_sets(y_SN, neighbours)
    return float(both.sum()) / (samples * neighbours)


def _neighbour_sets(x_SM: Tensor, neighbours: int) -> Tensor:
    """(S, S) truth: is the column among the nearest of the row?"""
    length_S = torch.linalg.vector_norm(x_SM, dim=1, keepdim=True)
    if not length_S.all():
        raise Undefined("a sample is all zero and has no direction")
    cosine_SS = (x_SM / length_S) @ (x_SM / length_S).T
    cosine_SS.fill_diagonal_(-torch.inf)
    nearest_SK = torch.sort(cosine_SS, dim=1, descending=True, stable=True).indices[:, :neighbours]
    return torch.zeros_like(cosine_SS, dtype=torch.bool).scatter_(1, nearest_SK, True)
