"""How many seeds: power of the test that decides, smallest effect that can be seen, seeds still needed.

Up to twelve seeds the power of the sign-flip test itself is integrated over fixed points: at five seeds, or a strict threshold,
it is well below that of Student's t. From thirteen on the two agree, and the formulas for t are used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from picolm.study.statistics.paired import Floats, seeds_for_floor, sign_flip_p

POWER = 0.8
MOST_SEEDS = 1000
SIMULATED_UP_TO = 12
_POINTS = 2048


def sd_upper_limit(deviation: float, seeds: int, level: float = 0.8) -> float:
    """Upper confidence limit of a standard deviation s known from so many seeds: s sqrt((n-1) / chi2_{1-level, n-1}).

    Planning with s itself is too hopeful half of the time. Infinite for fewer than two seeds.
    """
    if seeds < 2:
        return math.inf
    return float(deviation * np.sqrt((seeds - 1) / stats.chi2.ppf(1 - level, seeds - 1)))


def power_of(effect_in_sd: float, seeds: int, alpha: float) -> float:
    """Power of the one-sided test over seeds for normal effects with a true mean of `effect_in_sd` standard deviations."""
    if 2 <= seeds <= SIMULATED_UP_TO:
        return float((sign_flip_p(_draws(seeds) + effect_in_sd) <= alpha * (1 + 1e-9)).mean())
    return power_of_t(effect_in_sd, seeds, alpha)


def power_of_equivalence(margin_in_sd: float, seeds: int, alpha: float) -> float:
    """Power of the two one-sided tests over seeds against +-margin, for two equal variants and normal effects."""
    if margin_in_sd <= 0:
        return 0.0
    if 2 <= seeds <= SIMULATED_UP_TO:
        ends = (sign_flip_p(sign * _draws(seeds), shift=-margin_in_sd) for sign in (1.0, -1.0))
        return float((np.maximum(*ends) <= alpha * (1 + 1e-9)).mean())
    return power_of_tost(margin_in_sd, seeds, alpha)


@functools.cache
def _draws(seeds: int) -> Floats:
    """Normal effects spread evenly (Sobol points, half a cell from the edge), always the same."""
    points = stats.qmc.Sobol(seeds, scramble=False).random(_POINTS)
    return np.asarray(stats.norm.ppf(points + 0.5 / _POINTS))


def power_of_t(effect_in_sd: float, seeds: int, alpha: float) -> float:
    """Power of the one-sided paired t test (noncentral t)."""
    if seeds < 2:
        return 0.0
    freedom = seeds - 1
    return float(stats.nct.sf(stats.t.isf(alpha, freedom), freedom, effect_in_sd * math.sqrt(seeds)))


def power_of_tost(margin_in_sd: float, seeds: int, alpha: float) -> float:
    """Power of two one-sided t tests for equal variants, integrated over the chi distribution of s. Source: Phillips (1990)."""
    if seeds < 2 or margin_in_sd <= 0:
        return 0.0
    freedom, root = seeds - 1, math.sqrt(seeds)
    critical = float(stats.t.isf(alpha, freedom))
    share = (np.arange(2000) + 0.5) / 2000
    deviation = np.sqrt(stats.chi2.ppf(share, freedom) / freedom)
    reach = margin_in_sd * root - critical * deviation
    inside = stats.norm.cdf(reach) - stats.norm.cdf(-reach)
    return float(np.where(reach > 0, inside, 0.0).mean())


@functools.cache
def minimum_detectable(seeds: int, alpha: float, power: float = POWER) -> float:
    """The true mean, in sd of the differences, that is found with `power`; infinite where the floor forbids it."""
    if seeds < seeds_for_floor(alpha) or seeds < 2:
        return math.inf
    return float(optimize.brentq(lambda effect: power_of(effect, seeds, alpha) - power, 0.0, 100.0, xtol=1e-4))


@functools.cache
def minimum_margin(seeds: int, alpha: float, power: float = POWER) -> float:
    """The equivalence margin, in standard deviations, that two equal variants pass with `power`."""
    if seeds < seeds_for_floor(alpha) or seeds < 2:
        return math.inf
    return float(optimize.brentq(lambda margin: power_of_equivalence(margin, seeds, alpha) - power, 1e-6, 100.0, xtol=1e-4))


def seeds_needed(effect_in_sd: float, alpha: float, power: float = POWER) -> int | None:
    """The fewest seeds with which a true mean of `effect_in_sd` is found with `power`; None above 1,000 or for no effect."""
    if effect_in_sd <= 0:
        return None
    return _fewest(lambda seeds: power_of(effect_in_sd, seeds, alpha), alpha, power)


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
