"""Matrices to examine metrics with: ordinary ones, edge cases, and moves that should not matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHAPES = ((24, 12), (12, 24), (16, 16))


def usual_examples(pairs: bool) -> list[tuple[Tensor, ...]]:
    """Gaussian matrices, tall, wide and square, one of low rank, and one like the norms of micro-batches."""
    draw = torch.Generator().manual_seed(0)

    def gaussian(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=draw, dtype=torch.float64)

    singles = [gaussian(*shape) for shape in SHAPES]
    singles.append(gaussian(20, 3) @ gaussian(3, 10))
    singles.append(torch.tensor([[8.0, 5.0], [8.0, 4.5], [8.0, 5.5], [8.0, 4.0], [32.0, 2.0]], dtype=torch.float64))
    if not pairs:
        return [(single,) for single in singles]
    return [(single, single + 0.5 * gaussian(*single.shape)) for single in singles]


def edge_cases() -> dict[str, Tensor]:
    """Inputs for which something divides by zero, or is empty."""
    draw = torch.Generator().manual_seed(1)
    row = torch.randn(1, 8, generator=draw, dtype=torch.float64)
    return {
        "an all-zero matrix": torch.zeros(6, 4, dtype=torch.float64),
        "a constant matrix": torch.ones(6, 4, dtype=torch.float64),
        "a single entry": torch.ones(1, 1, dtype=torch.float64),
        "a single row": row,
        "a single column": row.T,
        "a matrix of rank one": row.T @ row,
        "a matrix with an all-zero row": torch.cat([row, torch.zeros_like(row), 2 * row.flip(1)]),
        "very small entries": row.T @ row * 1e-160,
        "very large entries": row.T @ row * 1e150,
    }


def _rotation(size: int, seed: int) -> Tensor:
    draw = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned: Tensor = torch.linalg.qr(draw).Q
    return turned


def _permuted(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Rows in another order, the same on both sides; a single matrix also has its columns in another order."""
    draw = torch.Generator().manual_seed(3)
    rows = torch.randperm(inputs[0].shape[0], generator=draw)
    if len(inputs) == 2:
        return [side[rows] for side in inputs]
    return [inputs[0][rows][:, torch.randperm(inputs[0].shape[1], generator=draw)]]


def _rotated(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Columns rotated, each side by its own rotation; the rows of a single matrix as well."""
    turned = [side @ _rotation(side.shape[1], seed) for seed, side in enumerate(inputs)]
    return turned if len(inputs) == 2 else [_rotation(inputs[0].shape[0], 9) @ turned[0]]


MOVES: dict[str, Callable[[tuple[Tensor, ...]], list[Tensor]]] = {
    "scale": lambda inputs: [side * factor for side, factor in zip(inputs, (7.3, 0.21), strict=False)],
    "permutation": _permuted,
    "rotation": _rotated,
    "transposition": lambda inputs: [side.T.contiguous() for side in inputs],
    "shift": lambda inputs: [side + torch.arange(side.shape[1], dtype=torch.float64) for side in inputs],
}
