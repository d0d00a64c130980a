"""What each metric must not see: rotation, scale, permutation, transposition, shift, where that holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from picolm.analyze.metrics.contract import METRICS, metric_function

Change = Callable[[Tensor, torch.Generator], Tensor]


def orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def rotated(x: Tensor, generator: torch.Generator) -> Tensor:
    return orthogonal(x.shape[0], generator) @ x @ orthogonal(x.shape[1], generator)


def neurons_rotated(x: Tensor, generator: torch.Generator) -> Tensor:
    return x @ orthogonal(x.shape[1], generator)


def scaled(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * 3.7


def transposed(x: Tensor, generator: torch.Generator) -> Tensor:
    return x.T


def permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    rows, columns = (torch.randperm(size, generator=generator) for size in x.shape)
    return x[rows][:, columns]


def neurons_permuted(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[:, torch.randperm(x.shape[1], generator=generator)]


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + torch.randn(x.shape[1], generator=generator, dtype=torch.float64)


def mapped(x: Tensor, generator: torch.Generator) -> Tensor:
    mixing = torch.eye(x.shape[1], dtype=torch.float64) + 0.3 * torch.randn(
        x.shape[1], x.shape[1], generator=generator, dtype=torch.float64
    )
    return x @ mixing


OF_SPECTRUM: list[Change] = [rotated, scaled, transposed, permuted]
OF_ONE: list[tuple[str, dict[str, Any], list[Change]]] = [
    ("gini", {}, [scaled, transposed, permuted]),
    ("hoyer", {}, [scaled, transposed, permuted]),
    ("per", {}, OF_SPECTRUM),
    ("effective_rank", {}, OF_SPECTRUM),
    ("rankme", {}, OF_SPECTRUM),
    ("stable_rank", {}, OF_SPECTRUM),
    ("participation_ratio", {}, OF_SPECTRUM),
    ("participation_ratio", {"centred": True}, [scaled, permuted, neurons_rotated, shifted]),
    ("condition_number", {}, OF_SPECTRUM),
    ("condition_number_above_tolerance", {}, OF_SPECTRUM),
    ("singular_value", {"at": 0.3}, [rotated, transposed, permuted]),
    ("relative_singular_value", {"at": 0.3}, OF_SPECTRUM),
    ("norm", {"norm_type": "frobenius"}, [rotated, transposed, permuted]),
    ("norm", {"norm_type": "nuclear"}, [rotated, transposed, permuted]),
    ("norm", {"norm_type": "spectral"}, [rotated, transposed, permuted]),
    ("norm", {"norm_type": "inf"}, [permuted]),
    ("norm", {"norm_type": "one"}, [permuted]),
    ("norm", {"norm_type": "max"}, [permuted, transposed]),
    ("kurtosis", {}, [scaled, permuted, shifted]),
    ("kurtosis", {"over": "units"}, [scaled, permuted]),
    ("kurtosis", {"over": "entries"}, [scaled, permuted, transposed]),
    ("dead_units", {"relative_threshold": 0.8}, [scaled, permuted]),
    ("outlier_channels", {"factor": 1.1}, [scaled, permuted]),
]
OF_SIMILARITY: list[Change] = [neurons_rotated, scaled, shifted]
OF_TWO: list[tuple[str, dict[str, Any], list[Change]]] = [
    ("cka", {}, OF_SIMILARITY),
    ("cka", {"debiased": True}, OF_SIMILARITY),
    ("minibatch_cka", {"batch_samples": 7}, OF_SIMILARITY),
    ("cca", {}, [*OF_SIMILARITY, mapped]),
    ("svcca", {"variance_share": 0.9}, OF_SIMILARITY),
    ("pwcca", {"direction": "y"}, [*OF_SIMILARITY, mapped]),  # weights from y: x may be mapped freely
    ("procrustes_angle", {}, OF_SIMILARITY),
    ("mutual_knn", {"neighbours": 3}, [neurons_rotated, scaled]),
    ("cosine", {}, [scaled]),
    ("sign_agreement", {}, [scaled]),
]
SYMMETRIC = ["cka", "minibatch_cka", "cca", "svcca", "procrustes_angle", "mutual_knn", "cosine", "sign_agreement"]


@pytest.mark.parametrize(("name", "options", "changes"), OF_ONE)
@given(seed=st.integers(0, 2**31), rows=st.integers(5, 12), columns=st.integers(5, 12))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_metric_of_one_matrix_does_not_see(
    name: str, options: Any, changes: list[Change], seed: int, rows: int, columns: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    value = metric_function(name)(x, **options)
    for change in changes:
        tolerance = 1e-6 if name.startswith("condition") else 1e-9
        assert metric_function(name)(change(x, generator), **options) == pytest.approx(value, rel=tolerance, abs=1e-12), change


@pytest.mark.parametrize(("name", "options", "changes"), OF_TWO)
@given(seed=st.integers(0, 2**31), width=st.integers(2, 5), other=st.integers(2, 5))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_metric_of_two_does_not_see(name: str, options: Any, changes: list[Change], seed: int, width: int, other: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(25, width, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(width, other, generator=generator, dtype=torch.float64)
    y = y + 0.5 * torch.randn(25, other, generator=generator, dtype=torch.float64)
    if name in ("cosine", "sign_agreement"):
        y = torch.randn(25, width, generator=generator, dtype=torch.float64)
    value = metric_function(name)(x, y, **options)
    for change in changes:
        assert metric_function(name)(change(x, generator), y, **options) == pytest.approx(value, rel=1e-7, abs=1e-7), change
    if name in SYMMETRIC:
        assert metric_function(name)(y, x, **options) == pytest.approx(value, rel=1e-9, abs=1e-9)
    order = torch.randperm(25, generator=generator)
    if name != "minibatch_cka":  # which samples share a batch matters there
        assert metric_function(name)(x[order], y[order], **options) == pytest.approx(value, rel=1e-9, abs=1e-9)


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-12, 1e12))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_norms_are_proportional_to_scale(seed: int, scale: float) -> None:
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for norm_type in ("frobenius", "nuclear", "spectral", "inf", "one", "max"):
        norm = metric_function("norm")
        assert norm(scale * x, norm_type=norm_type) == pytest.approx(scale * norm(x, norm_type=norm_type), rel=1e-10)


@given(
    seed=st.integers(0, 2**31), rows=st.integers(4, 20), columns=st.integers(2, 9), kept=st.floats(0.1, 1), rank=st.integers(1, 5)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_values_stay_within_their_bounds(seed: int, rows: int, columns: int, kept: float, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        left, right = (torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (rows, columns))
        return (left @ right.T) * (torch.rand(rows, columns, generator=generator, dtype=torch.float64) < kept)

    inputs = draw(), draw()
    for entry in METRICS.entries():
        traits = entry.object.traits
        pair = traits.needs in ("pair", "decomposed_pair")
        if traits.bounds is None or entry.name.startswith("gradient_noise"):
            continue
        options = {"norm": {"norm_type": "frobenius"}, "mutual_knn": {"neighbours": 2}}.get(entry.name, {})
        try:
            value = metric_function(entry.name)(*inputs[: 2 if pair else 1], **options)
        except ValueError:
            continue  # undefined for this draw
        low, high = traits.bounds
        if not (entry.name in ("cka", "minibatch_cka") and abs(value) > 1):  # an unbiased ratio may leave them a little
            assert low - 1e-12 <= value <= high + 1e-12, entry.name
