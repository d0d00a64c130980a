"""How things move from step to step: sizes of updates, agreement of directions, noise of gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric
from picolm.base.errors import Undefined

MOVING = ("weights", "gradients", "updates", "first_order", "activations")


def _ratio_estimator(*, norm_type: str) -> str:
    return f"{norm_type} norms"


@metric(
    "relative_size",
    needs="decomposed_pair",
    accepts=("updates", "gradients", "first_order", "activations"),
    bounds=(0.0, float("inf")),
    partner="beside",
    estimator=_ratio_estimator,
)
def relative_size(change: Matrix, whole: Matrix, *, norm_type: Literal["frobenius", "spectral"] = "frobenius") -> float:
    """Size of a change over the size of what it changes: ‖ΔW‖ / ‖W‖, the update-to-weight ratio.

    By default it is compared with what stands beside it: a weight beside an update or gradient, the residual stream
    beside a write. frobenius: root of the sum of squares. spectral: largest singular value. Invariant under a common
    scale. Undefined where the whole is zero.
    """
    sizes = [_size(side, norm_type) for side in (change, whole)]
    if sizes[1] == 0:
        raise Undefined("what it is compared with is zero")
    return sizes[0] / sizes[1]


def _size(matrix: Matrix, norm_type: str) -> float:
    if norm_type == "spectral":
        return float(matrix.singular_values_R[0])
    return float(torch.linalg.vector_norm(matrix.entries_MN))


def _no_agreement(x_shape: tuple[int, int], y_shape: tuple[int, int]) -> float:
    """Unrelated directions are orthogonal on average."""
    return 0.0


@metric(
    "cosine",
    needs="pair",
    accepts=MOVING,
    bounds=(-1.0, 1.0),
    null=_no_agreement,
    partner="previous",
    invariant=("scale", "permutation", "transposition"),
)
def cosine(x_MN: Tensor, y_MN: Tensor) -> float:
    """Cosine between two matrices taken as one long vector each: 1 same direction, 0 unrelated, -1 opposed.

    By default between one step and the chosen step before it: of gradients, whether training goes on in one direction
    or turns back. In N dimensions chance is of the order 1/√N. Invariant under scale of either side and under a common
    rotation. Undefined where a side is zero, or the shapes differ. Source: Fort et al. (2019).
    """
    _check_shapes(x_MN, y_MN)
    lengths = torch.linalg.vector_norm(x_MN), torch.linalg.vector_norm(y_MN)
    if not (lengths[0] > 0 and lengths[1] > 0):
        raise Undefined("one side is zero and has no direction")
    return float(((x_MN / lengths[0]) * (y_MN / lengths[1])).sum().clamp(-1.0, 1.0))


def _half(x_shape: tuple[int, int], y_shape: tuple[int, int]) -> float:
    """Signs of unrelated entries agree half the time."""
    return 0.5


@metric(
    "sign_agreement",
    needs="pair",
    accepts=MOVING,
    bounds=(0.0, 1.0),
    null=_half,
    partner="previous",
    invariant=("scale", "permutation", "transposition"),
)
def sign_agreement(x_MN: Tensor, y_MN: Tensor) -> float:
    """Share of entries with the same sign on both sides, among those that are zero on neither: 0.5 is chance.

    What sign-like optimisers such as Adam see of a gradient. Invariant under positive scale and permutation. Undefined
    if no entry is non-zero on both sides, or the shapes differ.
    """
    _check_shapes(x_MN, y_MN)
    counted_MN = (x_MN != 0) & (y_MN != 0)
    if not counted_MN.any():
        raise Undefined("no entry is non-zero on both sides")
    return float((x_MN.sign() == y_MN.sign())[counted_MN].double().mean())


@metric("gradient_noise_scale", accepts=("gradients",), bounds=(0.0, float("inf")))
def gradient_noise_scale(norms_S2: Tensor) -> float:
    """Noise of the gradient over its size, in tokens: S / |G|², the batch beyond which averaging more helps little.

    For the component `micro_batches`: one row (tokens, squared norm of the mean gradient) per micro-batch, the whole
    batch last. Solves E|g_b|² = |G|² + S/b at micro-batches and batch; both estimates are unbiased, their ratio is not:
    smooth `gradient_noise` and `gradient_signal` over steps and divide, before believing one value. A proxy for the
    critical batch size, not a measurement of it. Undefined with fewer than two micro-batches or if |G|² comes out not positive.
    Sources: McCandlish et al. (2018), caution in Merrill et al. (2025).
    """
    noise, size = noise_and_size(norms_S2)
    if not size > 0:
        raise Undefined(f"the estimate of the squared true gradient is not positive: {size:.3g}")
    return max(0.0, noise / size)


@metric("gradient_noise", accepts=("gradients",))
def gradient_noise(norms_S2: Tensor) -> float:
    """Trace S of the covariance of one token's gradient, estimated without bias; may come out below 0. See noise scale."""
    return noise_and_size(norms_S2)[0]


@metric("gradient_signal", accepts=("gradients",))
def gradient_signal(norms_S2: Tensor) -> float:
    """Squared norm |G|² of the true gradient, estimated without bias; may come out below 0. See noise scale."""
    return noise_and_size(norms_S2)[1]


def noise_and_size(norms_S2: Tensor) -> tuple[float, float]:
    """Unbiased estimates of S (per token) and |G|² from rows (tokens, squared norm), the whole batch last."""
    if norms_S2.shape[0] < 3 or norms_S2.shape[1] != 2:
        raise Undefined("at least two micro-batches are needed (component `micro_batches`)")
    (tokens_S, squared_S), (batch_tokens, batch_squared) = norms_S2[:-1].T, norms_S2[-1]
    noise = float((squared_S.mean() - batch_squared) / ((1 / tokens_S).mean() - 1 / batch_tokens))
    return noise, float(batch_squared) - noise / float(batch_tokens)


def _check_shapes(x_MN: Tensor, y_MN: Tensor) -> None:
    if x_MN.shape != y_MN.shape:
        raise Undefined(f"shapes differ: {tuple(x_MN.shape)} and {tuple(y_MN.shape)}")
