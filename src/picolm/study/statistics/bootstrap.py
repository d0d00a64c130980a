"""Resampling seeds and items together: how far a benchmark score may be off when both are a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from picolm.study.statistics.paired import Floats


class TwoLevel(NamedTuple):
    """Mean effect with its two-level interval and the p of "at most the shift"."""

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    items: int


def two_level_bootstrap(
    effects_SI: ArrayLike,
    *,
    clusters_I: Sequence[str] | None = None,
    shift: float = 0.0,
    level: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> TwoLevel:
    """`effects_SI`: paired difference of each seed (row) on each item (column), the same items for every seed.

    Seeds and items are drawn with replacement, independently; percentile interval of the mean; p = (b + 1) / (m + 1) with b the
    draws at or below `shift`. Items of one cluster resemble each other, so whole clusters are drawn where `clusters_I` names
    two or more (`items` then counts clusters); each counts by its number of items. With few seeds the interval is too narrow
    (six seeds: about 0.86 of a nominal 0.95), so it stands beside the sign-flip test and never replaces it. Source: Sellam et
    al. (2022), the Multi-Bootstrap.
    """
    effects = np.asarray(effects_SI, dtype=np.float64)
    if clusters_I is not None and len(set(clusters_I)) > 1:
        sums_SC, sizes_C = _sums_of(effects, clusters_I)
    else:
        sums_SC, sizes_C = effects, np.ones(effects.shape[1])
    seeds, items = sums_SC.shape
    generator = np.random.default_rng(seed)
    seed_share = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    drawn_DC = generator.multinomial(items, np.full(items, 1 / items), size=draws)
    means = np.einsum("dc,dc->d", seed_share @ sums_SC, drawn_DC) / (drawn_DC @ sizes_C)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    p = (int(np.count_nonzero(means <= shift)) + 1) / (draws + 1)
    return TwoLevel(float(effects.mean()), float(low), float(high), p, seeds, items)


def _sums_of(effects_SI: Floats, clusters_I: Sequence[str]) -> tuple[Floats, Floats]:
    """(S, C): the sum of each seed over each cluster; (C,): the items of each."""
    _, cluster_of_item, sizes_C = np.unique(np.asarray(clusters_I), return_inverse=True, return_counts=True)
    return np.stack([np.bincount(cluster_of_item, weights=effects_I) for effects_I in effects_SI]), sizes_C.astype(np.float64)
