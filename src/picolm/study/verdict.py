"""From p values at the looks to verdicts: the only place that knows when a prediction is supported or refuted.

Pure functions of numbers, so that thousands of simulated studies can be sent through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from picolm.study.judgement import Verdict
from picolm.study.statistics.families import holm

EXIT_CODES: dict[Verdict, int] = {"supported": 0, "refuted": 3, "inconclusive": 4, "invalid": 5, "exploratory": 6}
"""What `pico study judge` ends with; 1 and 2 stay for errors and wrong use."""

Decided = Literal["supported", "refuted"]
Method = Literal["fixed_sequence", "holm"]


@dataclass(frozen=True)
class Claim:
    """What one prediction has at one look."""

    supported: float | None = None
    """p of "it does not hold"; None if it cannot be tested."""
    refuted: float | None = None
    """p of "it holds"."""
    exact: bool | None = None
    """For predictions without chance: whether it holds."""


@dataclass(frozen=True)
class Decision:
    """Where one prediction stands after the looks so far."""

    verdict: Decided | None = None
    look: int | None = None
    """Index of the look that decided it."""
    supported_adjusted: float | None = None
    refuted_adjusted: float | None = None
    reached: bool = True
    """False: a prediction before it in the sequence was not supported, so it was not tested."""


def decide(
    looks: Sequence[Mapping[str, Claim]], thresholds: Sequence[float], order: Sequence[str], method: Method
) -> dict[str, Decision]:
    """Go through the looks in order; what is decided at one stays decided.

    A prediction is supported (refuted) at the first look where its adjusted p is at or below that look's threshold. Fixed
    sequence: it is tested only once all before it are supported. Holm: adjusted over the family, what is decided not counting.
    Each of the two statements, taken alone, is false with probability alpha at most over the family.
    """
    decisions = {name: Decision(reached=method == "holm") for name in order}
    step = _sequence_at if method == "fixed_sequence" else _holm_at
    for index, (claims, threshold) in enumerate(zip(looks, thresholds, strict=False)):
        decisions = step(decisions, claims, threshold, index)
    return decisions


def _sequence_at(
    decisions: dict[str, Decision], claims: Mapping[str, Claim], threshold: float, index: int
) -> dict[str, Decision]:
    after, is_open, largest = {}, True, 0.0
    for name, before in decisions.items():
        decision = before
        if before.verdict is None and is_open:
            claim = claims[name]
            adjusted = [None if p is None else max(largest, p) for p in (claim.supported, claim.refuted)]
            decision = _decided(claim, adjusted[0], adjusted[1], threshold, index)
        largest = max(largest, decision.supported_adjusted or 0.0)
        is_open = is_open and decision.verdict == "supported"
        after[name] = decision
    return after


def _holm_at(decisions: dict[str, Decision], claims: Mapping[str, Claim], threshold: float, index: int) -> dict[str, Decision]:
    supported, refuted = (
        holm(
            {
                name: 0.0 if decisions[name].verdict == side else p
                for name, claim in claims.items()
                if name in decisions and (p := getattr(claim, side)) is not None
            }
        )
        for side in ("supported", "refuted")
    )
    return {
        name: before
        if before.verdict is not None
        else _decided(claims[name], supported.get(name), refuted.get(name), threshold, index)
        for name, before in decisions.items()
    }


def _decided(claim: Claim, supported: float | None, refuted: float | None, threshold: float, index: int) -> Decision:
    undecided = Decision(supported_adjusted=supported, refuted_adjusted=refuted)
    if claim.exact is not None:
        return replace(undecided, verdict="supported" if claim.exact else "refuted", look=index)
    if supported is not None and _at_most(supported, threshold):
        return replace(undecided, verdict="supported", look=index)
    if refuted is not None and _at_most(refuted, threshold):
        return replace(undecided, verdict="refuted", look=index)
    return undecided


def _at_most(p: float, threshold: float) -> bool:
    """p <= threshold up to rounding: 1/64 written as 0.015625 or computed otherwise is the same level."""
    return p <= threshold * (1 + 1e-9)


def could_still_decide(claim: Claim, threshold: float, more_seeds: int) -> bool:
    """Whether any outcome of so many further seeds could bring a p to the threshold: at best it falls by 2 with each seed."""
    smallest = min((p for p in (claim.supported, claim.refuted) if p is not None), default=1.0)
    return _at_most(smallest * 2.0**-more_seeds, threshold)


def hypothesis_verdict(primary: Sequence[Verdict]) -> Verdict:
    """All supported: supported. Any refuted: refuted. Otherwise inconclusive; invalid or exploratory go for the whole study."""
    for whole in ("invalid", "exploratory"):
        if whole in primary:
            return whole
    if primary and all(verdict == "supported" for verdict in primary):
        return "supported"
    return "refuted" if "refuted" in primary else "inconclusive"


@dataclass(frozen=True)
class Refutation:
    """What tells one refutation from another."""

    word: str
    """The kind's own word, if the usual ones do not fit."""
    p_reversed: float | None
    p_negligible: float | None
    threshold: float

    def label(self) -> str:
        """reversed: the effect goes the other way; negligible: it lies within the threshold of zero; else too small."""
        if self.word:
            return self.word
        if self.p_reversed is not None and _at_most(self.p_reversed, self.threshold):
            return "reversed"
        if self.p_negligible is not None and _at_most(self.p_negligible, self.threshold):
            return "negligible"
        return "too small"


def is_fragile(p_left_out: Sequence[float], threshold: float, floor: float) -> bool:
    """Whether leaving out some seed takes the ground away: its p is above the threshold and above what the fewer seeds can reach.

    `floor`: the smallest p that one seed fewer can give.
    """
    return any(not _at_most(p, max(threshold, floor)) for p in p_left_out)
