"""How large a matrix is."""

from __future__ import annotations

from typing import Literal

import torch

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import metric

NormType = Literal["frobenius", "nuclear", "spectral", "inf", "one", "max"]


def _norm_estimator(*, norm_type: NormType) -> str:
    return {"inf": "largest row sum", "one": "largest column sum", "max": "largest magnitude"}.get(norm_type, norm_type)


@metric("norm", needs="decomposed", bounds=(0.0, float("inf")), estimator=_norm_estimator)
def norm(matrix: Matrix, *, norm_type: NormType) -> float:
    """Size of a matrix by one of six norms; 0 for the zero matrix, proportional to scale.

    frobenius: √Σx². nuclear: Σσ. spectral: largest σ. These three do not change under rotation and transposition.
    inf: largest row sum of magnitudes, the matrix norm the paper names. one: largest column sum. max: largest
    magnitude of an entry, which the original system computed under the name inf.
    """
    if norm_type == "nuclear":
        return float(matrix.singular_values_R.sum())
    if norm_type == "spectral":
        return float(matrix.singular_values_R[0])
    entries_MN = matrix.entries_MN
    if norm_type == "inf":
        return float(entries_MN.abs().sum(dim=1).max())
    if norm_type == "one":
        return float(entries_MN.abs().sum(dim=0).max())
    largest = float(entries_MN.abs().max())
    if norm_type == "max" or largest == 0:
        return largest
    return largest * float(torch.linalg.vector_norm(entries_MN / largest))
