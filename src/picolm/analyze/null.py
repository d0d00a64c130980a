"""What a metric gives for noise, so that its value can be read: closed form, Gaussian factors, or rows in random order."""

from __future__ import annotations

import functools
import json

import torch

from picolm.analyze.matrix import Matrix, Product
from picolm.analyze.metrics.contract import ROWS_PERMUTED, Metric, find_metric
from picolm.base.errors import Undefined

DRAWS = 3
"""Random draws behind a null that has no closed form. Their seeds are fixed: the null of the same input is always the same."""

ENOUGH_ROWS = 512
"""Rows from which one random order is as good as several: the null of a similarity then hardly depends on the order."""


def null_value(metric: Metric, matrix: Matrix, partner: Matrix | None) -> float | None:
    """The null of a metric for this input; None where it is not known."""
    null = metric.traits.null
    if null is None:
        return None
    try:
        if null == ROWS_PERMUTED:
            assert partner is not None, metric.name
            draws = 1 if matrix.shape[0] >= ENOUGH_ROWS else DRAWS
            return _mean([metric.value(matrix, partner.rows_permuted(seed)) for seed in range(draws)])
        assert callable(null)
        if partner is None and isinstance(matrix.stored, Product):
            options = json.dumps(metric.options, sort_keys=True)
            return _of_gaussian_product(metric.name, options, *matrix.stored.left_MR.shape, matrix.stored.right_RN.shape[1])
        return null(*(each.shape for each in (matrix, partner) if each is not None), **metric.options)
    except Undefined:
        return None


@functools.lru_cache(maxsize=512)
def _of_gaussian_product(name: str, options: str, rows: int, inner: int, columns: int) -> float:
    metric = find_metric(name, json.loads(options), name)
    values = []
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        left_MR = torch.randn(rows, inner, generator=generator, dtype=torch.float64)
        right_RN = torch.randn(inner, columns, generator=generator, dtype=torch.float64)
        values.append(metric.value(Matrix(functools.partial(Product, left_MR, right_RN))))
    return _mean(values)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
