"""Paired differences by seed: exact sign-flip test, t interval, standardised effect, probability of improvement.

An effect d_s is one number per seed, oriented so that positive means "as predicted". The last axis holds the seeds.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

ENUMERATED_UP_TO = 16
"""Up to this many seeds every sign vector is tried; beyond it they are drawn."""

DRAWS = 100_000


class Bounds(NamedTuple):
    """Lower and upper end of an interval."""

    low: float
    high: float


def sign_flip_p(effects: ArrayLike, *, shift: float = 0.0, seed: int = 0) -> Floats:
    """One-sided p of "effects are at most `shift`" against "they are larger", over the last axis.

    The share of sign vectors s with sum s_i (d_i - shift) >= sum (d_i - shift); exact if the d_i - shift are symmetric about
    zero under the null. Enumerated up to n = 16, else (b + 1) / (m + 1) from m = 100,000 seeded draws. Ties up to rounding
    count as reached. Source: Fisher (1935); Phipson and Smyth (2010) for the drawn form.
    """
    shifted = np.asarray(effects, dtype=np.float64) - shift
    seeds = shifted.shape[-1]
    if seeds == 0:
        return np.ones(shifted.shape[:-1])
    observed = shifted.sum(axis=-1) - 1e-12 * np.abs(shifted).sum(axis=-1)
    drawn = seeds > ENUMERATED_UP_TO
    signs = _drawn_signs(seeds, seed) if drawn else all_signs(seeds)
    reached = _reached(signs, shifted.reshape(-1, seeds), np.reshape(observed, -1))
    p = (reached + 1) / (len(signs) + 1) if drawn else reached / len(signs)
    return np.asarray(p, dtype=np.float64).reshape(shifted.shape[:-1])


def _reached(signs: Floats, studies: Floats, limits: Floats) -> NDArray[np.int64]:
    """For each study, how many sign vectors give a sum at or above its limit; some studies at a time, to bound memory."""
    together = max(1, 4_000_000 // len(signs))
    counts = [
        np.count_nonzero(signs @ studies[start : start + together].T >= limits[start : start + together], axis=0)
        for start in range(0, len(studies), together)
    ]
    return np.concatenate(counts)


@functools.cache
def all_signs(seeds: int) -> Floats:
    """Every vector of +1 and -1 of this length, one per row."""
    bits = (np.arange(2**seeds)[:, None] >> np.arange(seeds)) & 1
    return (1.0 - 2.0 * bits).astype(np.float64)


def _drawn_signs(seeds: int, seed: int) -> Floats:
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, seeds))


def p_floor(seeds: int) -> float:
    """The smallest one-sided p that the sign-flip test can give with so many seeds: 2^-n."""
    return 2.0**-seeds if seeds <= ENUMERATED_UP_TO else 1.0 / (DRAWS + 1)


def seeds_for_floor(threshold: float) -> int:
    """The fewest seeds with which a p at or below `threshold` can be reached."""
    return next(seeds for seeds in range(1, 64) if 2.0**-seeds <= threshold)


def t_interval(effects: ArrayLike, level: float = 0.95) -> Bounds:
    """Interval for the mean effect: mean +- t_{n-1} s / sqrt(n); unbounded for fewer than two seeds."""
    sample = np.asarray(effects, dtype=np.float64)
    if sample.size < 2:
        return Bounds(-np.inf, np.inf)
    half = float(stats.t.ppf(0.5 + level / 2, sample.size - 1) * sample.std(ddof=1) / np.sqrt(sample.size))
    return Bounds(float(sample.mean()) - half, float(sample.mean()) + half)


def standardised_effect(effects: ArrayLike) -> float | None:
    """d_z = mean / sd, times the small-sample factor J = Gamma(k/2) / (sqrt(k/2) Gamma((k-1)/2)), k = n - 1.

    None if the effects do not vary, or for fewer than three of them. Source: Hedges (1981).
    """
    sample = np.asarray(effects, dtype=np.float64)
    if sample.size < 3 or not (deviation := float(sample.std(ddof=1))) > 0:
        return None
    freedom = sample.size - 1
    factor = np.exp(special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2)) / np.sqrt(freedom / 2)
    return float(sample.mean() / deviation * factor)


class Probability(NamedTuple):
    """A share of seeds with its exact interval."""

    value: float
    low: float
    high: float
    wins: int
    n: int


def probability_of_improvement(effects: ArrayLike, level: float = 0.95) -> Probability:
    """Share of seeds with an effect above zero, with the Clopper-Pearson interval; seeds without any effect are left out."""
    sample = np.asarray(effects, dtype=np.float64)
    wins, n = int(np.count_nonzero(sample > 0)), int(np.count_nonzero(sample))
    if n == 0:
        return Probability(0.5, 0.0, 1.0, 0, 0)
    interval = stats.binomtest(wins, n).proportion_ci(level, method="exact")
    return Probability(wins / n, float(interval.low), float(interval.high), wins, n)


class LeftOut(NamedTuple):
    """What the others say without one seed."""

    position: int
    mean: float
    p: float


def leave_one_out(effects: ArrayLike, *, shift: float = 0.0, seed: int = 0) -> list[LeftOut]:
    """For each seed: the mean effect and the p of "larger than `shift`" of all others."""
    sample = np.asarray(effects, dtype=np.float64)
    rest = [np.delete(sample, index) for index in range(sample.size)] if sample.size > 1 else []
    return [
        LeftOut(index, float(left.mean()), float(sign_flip_p(left, shift=shift, seed=seed))) for index, left in enumerate(rest)
    ]


def outliers(effects: ArrayLike, cutoff: float = 3.5) -> list[int]:
    """Positions of effects with 0.6745 |d - median| / MAD above `cutoff`. Source: Iglewicz and Hoaglin (1993)."""
    sample = np.asarray(effects, dtype=np.float64)
    if sample.size < 3:
        return []
    distance = np.abs(sample - np.median(sample))
    typical = float(np.median(distance))
    if typical == 0:
        return []
    return [int(index) for index in np.flatnonzero(0.6745 * distance / typical > cutoff)]


class Equivalence(NamedTuple):
    """Two one-sided tests against a margin, by exact sign-flip and by Student's t."""

    p: float
    p_t: float
    p_outside: float
    """Of "within the margin" against "outside", on either side: twice the smaller one-sided p, at most 1."""


def equivalence(effects: ArrayLike, margin: float, *, seed: int = 0) -> Equivalence:
    """Is |mean effect| < margin? The larger p of the tests "above -margin" and "below margin". Source: Schuirmann (1987)."""
    sample = np.asarray(effects, dtype=np.float64)
    above, below = sign_flip_p(sample, shift=-margin, seed=seed), sign_flip_p(-sample, shift=-margin, seed=seed)
    beyond = min(sign_flip_p(sample, shift=margin, seed=seed), sign_flip_p(-sample, shift=margin, seed=seed))
    return Equivalence(float(max(above, below)), _tost_t(sample, margin), min(1.0, 2.0 * float(beyond)))


def _tost_t(sample: Floats, margin: float) -> float:
    if sample.size < 2 or not (error := float(sample.std(ddof=1) / np.sqrt(sample.size))) > 0:
        return 1.0 if sample.size < 2 or abs(float(sample.mean())) >= margin else 0.0
    mean, freedom = float(sample.mean()), sample.size - 1
    return float(max(stats.t.sf((mean + margin) / error, freedom), stats.t.cdf((mean - margin) / error, freedom)))


def two_sided_p(effects: ArrayLike, *, seed: int = 0) -> float:
    """Of "no difference" against a difference of either sign: twice the smaller one-sided p, at most 1."""
    sample = np.asarray(effects, dtype=np.float64)
    return min(1.0, 2.0 * float(min(sign_flip_p(sample, seed=seed), sign_flip_p(-sample, seed=seed))))


def stouffer(p_values: Sequence[float], smallest: float = 1e-300) -> float:
    """One p from independent one-sided ones: Phi(sum of z / sqrt(k)); a p of exactly 1 counts as its nearest smaller value."""
    clipped = np.clip(np.asarray(p_values, dtype=np.float64), smallest, 1 - 1e-9)
    return float(stats.combine_pvalues(clipped, method="stouffer").pvalue)
