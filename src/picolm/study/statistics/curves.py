"""Whole curves: where two variants part, judged at all points together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from picolm.study.statistics.paired import ENUMERATED_UP_TO, Floats, all_signs

_DRAWS = 2000


class Band(NamedTuple):
    """Mean effect at every point with a band that holds the whole true curve with probability `level`, and adjusted p values."""

    mean_T: Floats
    low_T: Floats
    high_T: Floats
    p_T: Floats
    """One-sided, adjusted for looking at every point: share of sign flips whose largest t reaches this point's t."""
    p: float
    """Of "no effect above the shift anywhere"."""


def simultaneous_band(effects_ST: ArrayLike, *, shift: float = 0.0, level: float = 0.95, seed: int = 0) -> Band:
    """`effects_ST`: oriented paired difference of each seed (row) at each point (column).

    p values: exact max-t sign-flip test, one flip per seed for all points, which keeps the dependence along the curve
    (Westfall and Young 1993; Nichols and Holmes 2002). Band: mean +- c s / sqrt(n), c the `level` quantile of max |t| of
    normal curves drawn with the correlation seen; the flips themselves are too few for a band at small n.
    """
    effects = np.asarray(effects_ST, dtype=np.float64)
    generator = np.random.default_rng(seed)
    t_T = _t_of(effects[None] - shift)[0]
    largest = _flipped_maxima(effects - shift, generator)
    reached = np.count_nonzero(largest[:, None] >= t_T[None, :] - 1e-9, axis=0)
    drawn = len(effects) > ENUMERATED_UP_TO
    p_T = (reached + 1) / (len(largest) + 1) if drawn else reached / len(largest)
    half_T = _critical(effects, level, generator) * effects.std(axis=0, ddof=1) / np.sqrt(len(effects))
    mean_T = effects.mean(axis=0)
    return Band(mean_T, mean_T - half_T, mean_T + half_T, p_T, float(p_T.min()))


def max_t_p(effects_ST: ArrayLike, shift: float = 0.0, seed: int = 0) -> float:
    """One-sided p of "at most `shift` everywhere": share of sign flips whose largest t reaches the one seen."""
    shifted = np.asarray(effects_ST, dtype=np.float64) - shift
    largest = _flipped_maxima(shifted, np.random.default_rng(seed))
    reached = np.count_nonzero(largest >= _t_of(shifted[None])[0].max() - 1e-9)
    return (reached + 1) / (len(largest) + 1) if len(shifted) > ENUMERATED_UP_TO else reached / len(largest)


def first_separation(p_T: ArrayLike, threshold: float) -> int | None:
    """Index of the first point from which on every adjusted p is at or below `threshold`; None if the last one is not."""
    crossed = np.asarray(p_T) <= threshold
    if not crossed[-1]:
        return None
    return int(np.flatnonzero(~crossed)[-1]) + 1 if not crossed.all() else 0


def _t_of(effects_FST: Floats) -> Floats:
    """t statistic over seeds at every point; no spread counts as the sign times infinity, and exactly zero effects as zero."""
    mean = effects_FST.mean(axis=1)
    error = effects_FST.std(axis=1, ddof=1) / np.sqrt(effects_FST.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, mean / error, np.where(mean == 0, 0.0, np.sign(mean) * np.inf))


def _flipped_maxima(shifted_ST: Floats, generator: np.random.Generator) -> Floats:
    """Largest t over the points for every flip of the signs of whole seeds."""
    seeds = len(shifted_ST)
    signs = all_signs(seeds) if seeds <= ENUMERATED_UP_TO else generator.choice([-1.0, 1.0], size=(_DRAWS, seeds))
    together = max(1, 2_000_000 // shifted_ST.size)
    parts = (signs[start : start + together] for start in range(0, len(signs), together))
    return np.concatenate([_t_of(part[:, :, None] * shifted_ST[None]).max(axis=1) for part in parts])


def _critical(effects_ST: Floats, level: float, generator: np.random.Generator) -> float:
    """The `level` quantile of max |t| over normal curves of as many seeds, with the correlation along the curve that was seen."""
    seeds = len(effects_ST)
    deviations = effects_ST - effects_ST.mean(axis=0)
    spread = effects_ST.std(axis=0, ddof=1)
    scaled = np.divide(deviations, spread, out=np.zeros_like(deviations), where=spread > 0) / np.sqrt(seeds - 1)
    together = max(1, 2_000_000 // effects_ST.size)
    largest = [
        np.abs(_t_of(generator.standard_normal((min(together, _DRAWS - start), seeds, seeds)) @ scaled)).max(axis=1)
        for start in range(0, _DRAWS, together)
    ]
    return float(np.quantile(np.concatenate(largest), level))
