"""Several predictions, one error rate: fixed sequence and Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p: the k-th smallest of m times (m - k + 1), never below the one before, at most 1. Source: Holm (1979)."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def fixed_sequence(p_values: Mapping[str, float], order: Sequence[str]) -> dict[str, float]:
    """Adjusted p: the largest so far along the declared order, so each is tested at full alpha only if those before held."""
    return dict(zip(order, np.maximum.accumulate([p_values[name] for name in order]).tolist(), strict=True)) if order else {}
