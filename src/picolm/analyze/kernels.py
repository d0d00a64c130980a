"""Inner products of samples, without a matrix of samples by samples where features are fewer."""

from __future__ import annotations

from torch import Tensor

from picolm.base.errors import Undefined


def squared_inner_products(x_SM: Tensor, y_SN: Tensor) -> float:
    """‖XᵀY‖² in the Frobenius norm, by whichever of the two equal forms is cheaper."""
    samples, features = x_SM.shape[0], min(x_SM.shape[1], y_SN.shape[1])
    if samples < features:
        return float(((x_SM @ x_SM.T) * (y_SN @ y_SN.T)).sum())
    return float((x_SM.T @ y_SN).square().sum())


def unbiased_hsic(x_SM: Tensor, y_SN: Tensor) -> float:
    """n(n − 3) times HSIC₁ of linear kernels, from centred samples.

    ‖XᵀY‖² − n/(n − 2) Σ rᵢsᵢ + Σr Σs / ((n − 1)(n − 2)), r and s the squared lengths of the rows. Source: Song et al. (2012).
    """
    n = x_SM.shape[0]
    if n < 4:
        raise Undefined(f"the unbiased estimate needs at least 4 samples, not {n}")
    r_S, s_S = x_SM.square().sum(dim=1), y_SN.square().sum(dim=1)
    correction = n / (n - 2) * float(r_S @ s_S) - float(r_S.sum() * s_S.sum()) / ((n - 1) * (n - 2))
    return squared_inner_products(x_SM, y_SN) - correction
