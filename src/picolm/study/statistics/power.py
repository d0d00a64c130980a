"""How many seeds: power of the paired t test, smallest effect that can be seen, seeds still needed.

The sign-flip test that decides loses little against t from six seeds on; the p floor is asked for besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from picolm.study.statistics.paired import seeds_for_floor

POWER = 0.8
MOST_SEEDS = 1000


def sd_upper_limit(deviation: float, seeds: int, level: float = 0.8) -> float:
    """Upper confidence limit of a standard deviation s known from so many seeds: s sqrt((n-1) / chi2_{1-level, n-1}).

    Planning with s itself is too hopeful half of the time. Infinite for fewer than two seeds.
    """
    if seeds < 2:
        return math.inf
    return float(deviation * np.sqrt((seeds - 1) / stats.chi2.ppf(1 - level, seeds - 1)))


def power_of(effect_in_sd: float, seeds: int, alpha: float) -> float:
    """Power of the one-sided paired t test for a true mean of `effect_in_sd` standard deviations (noncentral t)."""
    if seeds < 2:
        return 0.0
    freedom = seeds - 1
    return float(stats.nct.sf(stats.t.isf(alpha, freedom), freedom, effect_in_sd * math.sqrt(seeds)))


def power_of_equivalence(margin_in_sd: float, seeds: int, alpha: float, true_in_sd: float = 0.0) -> float:
    """Power of two one-sided t tests against +-margin, by integrating over the chi distribution of s. Source: Phillips (1990)."""
    if seeds < 2 or margin_in_sd <= 0:
        return 0.0
    freedom, root = seeds - 1, math.sqrt(seeds)
    critical = float(stats.t.isf(alpha, freedom))
    share = (np.arange(2000) + 0.5) / 2000
    deviation = np.sqrt(stats.chi2.ppf(share, freedom) / freedom)
    reach = margin_in_sd * root - critical * deviation
    inside = stats.norm.cdf(reach - true_in_sd * root) - stats.norm.cdf(-reach - true_in_sd * root)
    return float(np.where(reach > 0, inside, 0.0).mean())


def minimum_detectable(seeds: int, alpha: float, power: float = POWER) -> float:
    """The true mean, in sd of the differences, that is found with `power`; infinite where the floor forbids it."""
    if seeds < seeds_for_floor(alpha) or seeds < 2:
        return math.inf
    return float(optimize.brentq(lambda effect: power_of(effect, seeds, alpha) - power, 0.0, 100.0))


def minimum_margin(seeds: int, alpha: float, power: float = POWER) -> float:
    """The equivalence margin, in standard deviations, that two equal variants pass with `power`."""
    if seeds < seeds_for_floor(alpha) or seeds < 2:
        return math.inf
    return float(optimize.brentq(lambda margin: power_of_equivalence(margin, seeds, alpha) - power, 1e-6, 100.0))


def seeds_needed(effect_in_sd: float, alpha: float, power: float = POWER) -> int | None:
    """The fewest seeds with which a true mean of `effect_in_sd` is found with `power`; None above 1,000 or for no effect."""
    return _fewest(lambda seeds: power_of(effect_in_sd, seeds, alpha), alpha, power) if effect_in_sd > 0 else None


def seeds_needed_for_equivalence(margin_in_sd: float, alpha: float, power: float = POWER) -> int | None:
    """The fewest seeds with which two equal variants pass a margin of `margin_in_sd` with `power`."""
    return _fewest(lambda seeds: power_of_equivalence(margin_in_sd, seeds, alpha), alpha, power)


def _fewest(power_with: Callable[[int], float], alpha: float, power: float) -> int | None:
    low, high = max(2, seeds_for_floor(alpha)), MOST_SEEDS
    if power_with(high) < power:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_with(middle) >= power else (middle + 1, high)
    return low
