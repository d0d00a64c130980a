"""What rows about rank say beside the number: how many directions are more than rounding, and what was low by construction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import picolm
from picolm.analyze.matrix import Matrix, Product
from picolm.analyze.metrics.contract import find_metric

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def remark(stored: Tensor | Product, name: str = "condition_number") -> str:
    return find_metric(name, {}, "test").remark(Matrix(lambda: stored))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns", "rank"), [(32, 96, 16), (96, 96, 16), (256, 64, 4), (50, 40, 39)])
def test_the_numerical_rank_of_a_rounded_low_rank_product_is_its_rank(dtype: str, rows: int, columns: int, rank: int):
    for seed in range(5):
        product_MN = (gaussian(rows, rank, seed=seed) @ gaussian(rank, columns, seed=seed + 100)).to(DTYPES[dtype])
        matrix = Matrix(lambda stored=product_MN: stored)
        assert matrix.numerical_rank == rank
        assert f"numerical rank {rank} of {min(rows, columns)} in {dtype}" in remark(product_MN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_floor_is_twice_the_largest_singular_value_of_the_rounding(dtype: str):
    for shape in ((64, 64), (32, 200), (300, 100)):
        exact_MN = gaussian(*shape) * torch.exp(gaussian(*shape, seed=1))
        rounded_MN = exact_MN.to(DTYPES[dtype])
        error = float(torch.linalg.matrix_norm(rounded_MN.double() - exact_MN, ord=2))
        matrix = Matrix(lambda stored=rounded_MN: stored)
        floor = matrix.rounding_floor * float(matrix.singular_values_R[0])
        assert 1.2 * error < floor < 3 * error


def test_nothing_is_said_about_a_matrix_of_full_rank():
    assert all(remark(gaussian(48, 64).to(dtype)) == "" for dtype in DTYPES.values())
    assert remark(torch.ones(3, 1)) == ""


def test_a_condition_number_of_rounding_is_told_from_one_of_the_matrix():
    """The published comparison: a product of rank 16 in bfloat16 has a finite condition number that rounding alone decides."""
    product_MN = (gaussian(96, 16) @ gaussian(16, 32, seed=1)).to(torch.bfloat16)
    assert 3e2 < picolm.metric("condition_number")(product_MN) < 3e4
    assert remark(product_MN).startswith("numerical rank 16 of 32 in bfloat16: singular values below")


def test_a_product_kept_as_factors_says_what_its_rank_can_be():
    assert remark(Product(gaussian(20, 3), gaussian(3, 30)), "per") == "rank at most 3 of 20 by construction"
