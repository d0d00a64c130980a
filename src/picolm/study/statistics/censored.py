"""Tokens to a level, some of them never reached within the budget."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from picolm.study.statistics.paired import Floats


class Speedup(NamedTuple):
    """Oriented scores of each seed for the sign-flip test and the restricted mean times."""

    scores: Floats
    ranked: bool
    """Whether something was censored, so that the scores are signed ranks rather than log ratios."""
    restricted_of: float
    restricted_versus: float


def speedup(
    of: ArrayLike, versus: ArrayLike, of_censored: ArrayLike, versus_censored: ArrayLike, *, budget: float, at_least: float = 1.0
) -> Speedup:
    """Scores that are symmetric about zero if `of` needs 1 / `at_least` of the tokens of `versus`; positive: it needs fewer.

    Without censoring: log(versus / of) - log(at_least). Any censoring: both times on one scale, x = min(of * at_least, B) and
    y = min(versus, B) with B the end of that scale, so that who is censored does not depend on whose time was stretched; signed
    ranks of log(y / x), a pair with both at B being a tie. An infinite time (a run that can never get there) against one that
    did counts as the furthest of all. Restricted mean: mean of min(time, budget).
    """
    mine, other = np.asarray(of, dtype=np.float64), np.asarray(versus, dtype=np.float64)
    late_mine, late_other = np.asarray(of_censored, dtype=bool), np.asarray(versus_censored, dtype=bool)
    restricted = [float(np.minimum(times, budget).mean()) for times in (mine, other)]
    if not (late_mine.any() or late_other.any()):
        return Speedup(np.log(other / mine) - np.log(at_least), False, *restricted)
    end = budget * min(1.0, at_least)
    stretched = np.where(late_mine, end, np.minimum(mine * at_least, end))
    gaps = np.log(np.where(late_other, end, np.minimum(other, end)) / stretched)
    gaps[np.isinf(mine) & ~late_other] = -np.inf
    gaps[np.isinf(other) & ~late_mine] = np.inf
    return Speedup(signed_ranks(gaps), True, *restricted)


def signed_ranks(effects: NDArray[np.float64]) -> Floats:
    """Rank of |effect| among those that are not zero, with the effect's sign; ties share their mean rank."""
    ranks = np.zeros_like(effects)
    moved = effects != 0
    ranks[moved] = np.sign(effects[moved]) * stats.rankdata(np.abs(effects[moved]))
    return ranks
