"""How alike two sets of activations are, by their kernels. Rows are the same samples in both; neurons may differ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from picolm.analyze.kernels import squared_inner_products, unbiased_hsic
from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import ROWS_PERMUTED, metric
from picolm.base.errors import Undefined

NO_OWN_VARIANCE = "the unbiased estimate of a side's own variance is not positive"


def _cka_estimator(*, debiased: bool) -> str:
    return "unbiased HSIC (Song et al. 2012)" if debiased else "biased HSIC"


@metric(
    "cka",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(-1.0, 1.0),
    null=ROWS_PERMUTED,
    estimator=_cka_estimator,
    invariant=("scale", "permutation", "rotation", "shift"),
)
def cka(x: Matrix, y: Matrix, *, debiased: bool = False) -> float:
    """Linear centred kernel alignment: ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), columns centred.

    1: equal up to rotation and scale. The biased form, which the paper uses, rises with neurons per sample even for
    unrelated data; `debiased` replaces each term by its unbiased estimate (may fall below 0) and is the one to compare
    across sizes. Invariant under rotation, isotropic scale and shift. Undefined where a side has no variance.
    Sources: Kornblith et al. (2019), Song et al. (2012), Murphy et al. (2024).
    """
    check_samples_match(x, y)
    if not debiased:
        return squared_inner_products(x.unit_SR, y.unit_SR) / math.sqrt(x.own_square * y.own_square)
    cross = unbiased_hsic(x.unit_SR, y.unit_SR)
    if not (x.own_hsic > 0 and y.own_hsic > 0):
        raise Undefined(NO_OWN_VARIANCE)
    return cross / math.sqrt(x.own_hsic * y.own_hsic)


def _minibatch_estimator(*, batch_samples: int) -> str:
    return f"unbiased HSIC averaged over batches of {batch_samples}"


@metric(
    "minibatch_cka",
    needs="decomposed_pair",
    accepts=("activations",),
    bounds=(-1.0, 1.0),
    null=ROWS_PERMUTED,
    estimator=_minibatch_estimator,
    invariant=("scale", "rotation", "shift"),
)
def minibatch_cka(x: Matrix, y: Matrix, *, batch_samples: int = 256) -> float:
    """Debiased CKA whose three terms are averaged over batches of samples before they are divided once.

    For data that does not fit in memory; an average of CKA values, or of biased terms, would be wrong. A last batch of
    fewer than four samples is not used. Undefined with fewer than four samples, or where an averaged variance is not
    positive. Source: Nguyen et al. (2021).
    """
    check_samples_match(x, y)
    if batch_samples < 4:
        raise Undefined(f"the unbiased estimate needs batches of at least 4 samples, not {batch_samples}")
    batches = zip(torch.split(x.unit_SR, batch_samples), torch.split(y.unit_SR, batch_samples), strict=True)
    terms = [_hsic_terms(x_BM, y_BN) for x_BM, y_BN in batches if x_BM.shape[0] >= 4]
    if not terms:
        raise Undefined(f"the unbiased estimate needs at least 4 samples, not {x.shape[0]}")
    cross, own_x, own_y = torch.tensor(terms, dtype=torch.float64).mean(dim=0).tolist()
    if not (own_x > 0 and own_y > 0):
        raise Undefined(NO_OWN_VARIANCE)
    return float(cross / math.sqrt(own_x * own_y))


def _hsic_terms(x_BM: Tensor, y_BN: Tensor) -> tuple[float, float, float]:
    x_BM, y_BN = x_BM - x_BM.mean(dim=0), y_BN - y_BN.mean(dim=0)
    scale = x_BM.shape[0] * (x_BM.shape[0] - 3)
    return unbiased_hsic(x_BM, y_BN) / scale, unbiased_hsic(x_BM, x_BM) / scale, unbiased_hsic(y_BN, y_BN) / scale


def check_samples_match(x: Matrix, y: Matrix) -> None:
    """Undefined unless both have the same number of samples."""
    if x.shape[0] != y.shape[0]:
        raise Undefined(f"{x.shape[0]} samples cannot be compared with {y.shape[0]}")
