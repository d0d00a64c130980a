"""How units behave over samples: heavy tails, silence, outliers. Rows are samples, columns are units."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from picolm.analyze.metrics.contract import metric
from picolm.base.errors import Undefined


def _kurtosis_of_noise(shape: tuple[int, int], *, over: str) -> float:
    """Of n Gaussian numbers with sample moments: 3 (n - 1) / (n + 1), which tends to 3."""
    n = {"samples": shape[0], "units": shape[1], "entries": shape[0] * shape[1]}[over]
    return 3 * (n - 1) / (n + 1)


def _kurtosis_estimator(*, over: str) -> str:
    return f"sample moments over {over}"


@metric(
    "kurtosis",
    bounds=(1.0, float("inf")),
    null=_kurtosis_of_noise,
    estimator=_kurtosis_estimator,
    invariant=("scale", "permutation"),
)
def kurtosis(x_SN: Tensor, *, over: Literal["samples", "units", "entries"] = "samples") -> float:
    """Weight of the tails: E(x - mean)^4 / variance^2; a Gaussian has 3.

    samples: of each unit over samples, then the mean over units. units: of each sample over units, then the mean over
    samples, which outlier units drive up. entries: of all entries together. Columns or rows that are constant have none
    and are left out; undefined if all are. Invariant under scale, permutation and shift along the chosen dimension.
    Source: He et al. (2024).
    """
    values_AB = {"samples": x_SN.T, "units": x_SN, "entries": x_SN.reshape(1, -1)}[over]
    centred_AB = values_AB - values_AB.mean(dim=1, keepdim=True)
    varies_A = centred_AB.abs().amax(dim=1) > 8 * torch.finfo(torch.float64).eps * values_AB.abs().amax(dim=1)
    if not varies_A.any():
        raise Undefined("nothing varies")
    varying_AB = centred_AB[varies_A] / centred_AB[varies_A].abs().amax(dim=1, keepdim=True)
    fourth_A, second_A = varying_AB.pow(4).mean(dim=1), varying_AB.square().mean(dim=1)
    return float((fourth_A / second_A.square()).mean())


@metric("dead_units", accepts=("activations",), bounds=(0.0, 1.0), invariant=("scale", "permutation"))
def dead_units(x_SN: Tensor, *, relative_threshold: float = 1e-3) -> float:
    """Share of units whose magnitude stays at or below `relative_threshold` times the root mean square on every sample.

    Means most on hidden units (component `swiglu`). With few samples many living units look dead. Invariant under scale
    and permutation. Undefined if everything is zero.
    """
    root_mean_square = float(x_SN.square().mean().sqrt())
    if root_mean_square == 0:
        raise Undefined("all entries are zero")
    return float((x_SN.abs().amax(dim=0) <= relative_threshold * root_mean_square).double().mean())


@metric("outlier_channels", accepts=("activations",), bounds=(0.0, 1.0), invariant=("scale", "permutation"))
def outlier_channels(x_SN: Tensor, *, factor: float = 6.0) -> float:
    """Share of units whose root mean square exceeds `factor` times that of the median unit.

    Such units dominate similarities and make quantisation hard. Invariant under scale and permutation. Undefined if the
    median unit is silent. Source: after Dettmers et al. (2022).
    """
    size_N = x_SN.square().mean(dim=0).sqrt()
    median = float(size_N.quantile(0.5))
    if median == 0:
        raise Undefined("the median unit is zero on every sample")
    return float((size_N > factor * median).double().mean())
