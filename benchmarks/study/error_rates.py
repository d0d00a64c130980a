"""How often the verdicts are wrong: thousands of simulated studies through the rules that judge a real one.

    python benchmarks/study/error_rates.py [--studies 20000] [--json rates.json]

Every study is a table of paired effects, one row per seed. Its p values come from the functions that the kinds of prediction
use, many studies at a time; its verdicts come from `picolm.study.verdict.decide`, one study at a time. `tests/study/
test_error_rates.py` proves for a sample that whole run folders with the same effects get the same verdicts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from picolm.study.statistics.bootstrap import two_level_bootstrap
from picolm.study.statistics.censored import speedup
from picolm.study.statistics.curves import max_t_p
from picolm.study.statistics.events import event_alignment, without_trend
from picolm.study.statistics.looks import error_of_looks
from picolm.study.statistics.paired import sign_flip_p, stouffer
from picolm.study.statistics.power import power_of, power_of_equivalence
from picolm.study.verdict import Claim, Method, decide

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]
"""(generator, studies, seeds) -> effects with mean 0 and standard deviation about 1."""


def _normal(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    return generator.standard_normal((studies, seeds))


def _heavy(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """Student's t with three degrees of freedom."""
    return generator.standard_t(3, (studies, seeds)) / np.sqrt(3)


def _outliers(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """One seed in ten varies ten times as much."""
    scale = np.where(generator.random((studies, seeds)) < 0.1, 10.0, 1.0)
    return generator.standard_normal((studies, seeds)) * scale / np.sqrt(0.9 + 0.1 * 100)


def _skewed_runs(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """Both variants have log-normal noise of the same law, so that their difference is symmetric."""
    runs = generator.lognormal(0.0, 1.0, (2, studies, seeds))
    return np.asarray((runs[0] - runs[1]) / np.sqrt(2 * (np.e - 1) * np.e))


def _skewed_effects(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """The effect itself is log-normal: a few seeds gain much, most lose a little; its mean is 0."""
    return np.asarray((generator.lognormal(0.0, 1.0, (studies, seeds)) - np.sqrt(np.e)) / np.sqrt((np.e - 1) * np.e))


def _skewed_the_other_way(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    return -_skewed_effects(generator, studies, seeds)


def _shared_seed_noise(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """A seed moves both variants alike by ten times what is left between them: pairing takes it out."""
    common = 10 * generator.standard_normal((studies, seeds))
    runs = common + generator.standard_normal((2, studies, seeds)) / np.sqrt(2)
    return np.asarray(runs[0] - runs[1])


def _correlated_seeds(generator: np.random.Generator, studies: int, seeds: int) -> Floats:
    """Effects of different seeds are correlated by 0.2: something all runs share, such as one data order, favours a variant."""
    common = generator.standard_normal((studies, 1))
    return np.asarray(np.sqrt(0.2) * common + np.sqrt(0.8) * generator.standard_normal((studies, seeds)))


LAWS: dict[str, Draw] = {
    "normal": _normal,
    "heavy tails (t, 3 degrees)": _heavy,
    "outliers (1 in 10, tenfold)": _outliers,
    "skewed runs, same law": _skewed_runs,
    "noise shared by a seed": _shared_seed_noise,
    "skewed effects, long tail up": _skewed_effects,
    "skewed effects, long tail down": _skewed_the_other_way,
    "seeds correlated by 0.2": _correlated_seeds,
}
SYMMETRIC = tuple(LAWS)[:5]
"""Laws under which the sign-flip test is exact."""


@dataclass(frozen=True)
class Plan:
    """Looks and their thresholds."""

    looks: tuple[int, ...]
    thresholds: tuple[float, ...]

    @property
    def name(self) -> str:
        if len(self.looks) == 1:
            return f"{self.looks[0]} seeds"
        return ", then ".join(f"{n} at {level:.4g}" for n, level in zip(self.looks, self.thresholds, strict=True))


ONE_LOOK = tuple(Plan((seeds,), (0.05,)) for seeds in range(3, 11))
TWO_LOOKS = (Plan((6, 10), (1 / 64, 0.04)), Plan((5, 10), (1 / 32, 0.025)))


@dataclass(frozen=True)
class Rates:
    """Shares of studies by verdict."""

    supported: float
    refuted: float


def beyond(effects: Floats, at_least: float) -> tuple[Floats, Floats]:
    """p of both statements of a difference, study by study."""
    return sign_flip_p(effects, shift=at_least), sign_flip_p(-effects, shift=-at_least)


def within(effects: Floats, margin: float) -> tuple[Floats, Floats]:
    """p of both statements of an equivalence, study by study."""
    inside = np.maximum(sign_flip_p(effects, shift=-margin), sign_flip_p(-effects, shift=-margin))
    outside = np.minimum(sign_flip_p(effects, shift=margin), sign_flip_p(-effects, shift=margin))
    return inside, np.minimum(1.0, 2.0 * outside)


Pair = Callable[[Floats, float], tuple[Floats, Floats]]


def verdicts(
    tables: Sequence[Floats], thresholds: Sequence[float], looks: Sequence[int], test: Pair, at: float, method: Method
) -> list[list[str | None]]:
    """For every study the verdict on each prediction. `tables`: for each prediction its effects, (studies, seeds)."""
    order = [f"P{number}" for number in range(len(tables))]
    p = [[test(table[:, :seeds], at) for table in tables] for seeds in looks]
    found = []
    known: dict[tuple[float, ...], list[str | None]] = {}  # p is a multiple of 2^-n, so few studies are new
    for study in range(len(tables[0])):
        key = tuple(float(side[study]) for look in p for sides in look for side in sides)
        if key in known:
            found.append(known[key])
            continue
        claims = [
            {name: Claim(float(sides[0][study]), float(sides[1][study])) for name, sides in zip(order, look, strict=True)}
            for look in p
        ]
        known[key] = [decision.verdict for decision in decide(claims, thresholds, order, method).values()]
        found.append(known[key])
    return found


def rates(effects: Floats, plan: Plan, test: Pair, at: float) -> Rates:
    """How often one prediction is called supported and refuted."""
    found = [row[0] for row in verdicts([effects], plan.thresholds, plan.looks, test, at, "fixed_sequence")]
    return Rates(found.count("supported") / len(found), found.count("refuted") / len(found))


def family_error(effects: Sequence[Floats], plan: Plan, method: Method, true: Sequence[bool]) -> float:
    """How often any prediction without an effect is called supported. `true`: which predictions have one."""
    found = verdicts(effects, plan.thresholds, plan.looks, beyond, 0.0, method)
    wrong = [any(verdict == "supported" and not holds for verdict, holds in zip(row, true, strict=True)) for row in found]
    return sum(wrong) / len(wrong)


def related(generator: np.random.Generator, studies: int, seeds: int, correlation: float, count: int = 3) -> list[Floats]:
    """Normal effects of several measures of the same runs, correlated with each other."""
    common = generator.standard_normal((studies, seeds))
    own = generator.standard_normal((count, studies, seeds))
    return [np.asarray(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * one) for one in own]


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    table: str
    law: str
    plan: str
    value: float
    expected: float | None = None


def false_claims(studies: int, plans: Sequence[Plan] = (*ONE_LOOK, *TWO_LOOKS), laws: Sequence[str] = tuple(LAWS)) -> list[Row]:
    """At the threshold itself, where both statements of a difference are false: how often each is made."""
    rows = []
    for number, law in enumerate(laws):
        effects = LAWS[law](np.random.default_rng([1, number]), studies, 10)
        for plan in plans:
            found = rates(effects + 0.3, plan, beyond, 0.3)
            expected = error_of_looks(plan.looks, plan.thresholds)
            rows += [Row("false supported", law, plan.name, found.supported, expected)]
            rows += [Row("false refuted", law, plan.name, found.refuted, expected)]
    return rows


def false_equivalence(
    studies: int, plans: Sequence[Plan] = (*ONE_LOOK[2:], *TWO_LOOKS), laws: Sequence[str] = tuple(LAWS)
) -> list[Row]:
    """With the true difference exactly at the margin (1.4 sd): how often it is called equivalent."""
    rows = []
    for number, law in enumerate(laws):
        effects = LAWS[law](np.random.default_rng([2, number]), studies, 10)
        rows += [
            Row("false equivalence", law, plan.name, rates(effects + 1.4, plan, within, 1.4).supported, 0.05) for plan in plans
        ]
    return rows


def family_errors(studies: int) -> list[Row]:
    """Three predictions on correlated measures, none true, or the first true: how often a false one is supported."""
    rows = []
    for plan in (Plan((6,), (0.05,)), Plan((8,), (0.05,)), *TWO_LOOKS):
        for correlation in (0.0, 0.7):
            effects = related(np.random.default_rng([3, int(10 * correlation)]), studies, 10, correlation)
            shifted = [effects[0] + 3.0, *effects[1:]]
            for method in ("fixed_sequence", "holm"):
                law = f"{method}, measures correlated by {correlation:g}"
                rows.append(Row("family, none true", law, plan.name, family_error(effects, plan, method, (False,) * 3), 0.05))
                rows.append(
                    Row("family, first true", law, plan.name, family_error(shifted, plan, method, (True, False, False)), 0.05)
                )
    return rows


def powers(studies: int) -> list[Row]:
    """Share of studies that find a true effect, and a true equality, against the power that planning states."""
    rows = []
    normal = _normal(np.random.default_rng([4]), studies, 10)
    for seeds in range(5, 11):
        plan = Plan((seeds,), (0.05,))
        for effect in (1.0, 1.5, 2.0):
            found = rates(normal + effect, plan, beyond, 0.0).supported
            rows.append(Row("power, difference", f"true effect {effect:g} sd", plan.name, found, power_of(effect, seeds, 0.05)))
        for margin in (1.0, 1.5, 2.0):
            found = rates(normal, plan, within, margin).supported
            rows.append(
                Row("power, equivalence", f"margin {margin:g} sd", plan.name, found, power_of_equivalence(margin, seeds, 0.05))
            )
    return rows


def coverage(studies: int, plans: Sequence[Plan] = ONE_LOOK, laws: Sequence[str] = tuple(LAWS)) -> list[Row]:
    """How often the 95% t interval of the mean holds the true mean."""
    rows = []
    for number, law in enumerate(laws):
        effects = LAWS[law](np.random.default_rng([5, number]), studies, 10)
        for plan in plans:
            seeds = plan.looks[0]
            sample = effects[:, :seeds]
            half = stats.t.ppf(0.975, seeds - 1) * sample.std(axis=1, ddof=1) / np.sqrt(seeds)
            held = float((np.abs(sample.mean(axis=1)) <= half).mean())
            rows.append(Row("coverage of the 95% t interval", law, plan.name, held, 0.95))
    return rows


def other_kinds(studies: int) -> list[Row]:
    """Kinds with a test of their own, six seeds, nothing to be found: how often they are called supported."""
    plan = Plan((6,), (0.05,))
    kinds: dict[str, Callable[[np.random.Generator], float]] = {
        "whole curve: 30 points of a random walk": lambda generator: max_t_p(generator.standard_normal((6, 30)).cumsum(axis=1)),
        "tokens to a level: 40% never get there, factor 1.3 asked for": _censored_p,
        "event alignment: five marks in an autocorrelated series": _alignment_p,
        "items: 200 items that differ, no effect on average": _items_p,
    }
    rows = []
    for number, (name, p_of) in enumerate(kinds.items()):
        generator = np.random.default_rng([6, number])
        false = sum(p_of(generator) <= 0.05 for _ in range(studies)) / studies
        rows.append(Row("other kinds, false supported", name, plan.name, false, 0.05))
    return rows


def _censored_p(generator: np.random.Generator) -> float:
    slow, fast = generator.lognormal(4.0, 0.5, 6), generator.lognormal(4.0, 0.5, 6) / 1.3
    of, versus = np.minimum(fast, 60.0), np.minimum(slow, 60.0)
    return float(sign_flip_p(speedup(of, versus, fast > 60, slow > 60, budget=60.0, at_least=1.3).scores))


def _alignment_p(generator: np.random.Generator) -> float:
    p_values = []
    for _ in range(6):
        series = generator.standard_normal(120)
        for at in range(1, 120):
            series[at] += 0.8 * series[at - 1]
        marks = np.zeros(120)
        marks[generator.integers(0, 120, 5)] = 1
        p_values.append(event_alignment(without_trend(series), marks).p)
    return stouffer(p_values)


def _items_p(generator: np.random.Generator) -> float:
    """Seeds and items both vary; the larger p of seeds alone and of both counts, as it does in a study."""
    effects = generator.standard_normal((6, 1)) * 0.1 + generator.standard_normal((1, 200)) + generator.standard_normal((6, 200))
    return max(float(sign_flip_p(effects.mean(axis=1))), two_level_bootstrap(effects, draws=1000).p)


def markdown(rows: Sequence[Row]) -> str:
    """One table per kind of error, laws down, numbers of seeds across, in percent."""
    parts = []
    for table in dict.fromkeys(row.table for row in rows):
        mine = [row for row in rows if row.table == table]
        plans = list(dict.fromkeys(row.plan for row in mine))
        lines = [f"**{table}**, percent of studies", "", "| | " + " | ".join(plans) + " |", "| --- |" + " ---: |" * len(plans)]
        for law in dict.fromkeys(row.law for row in mine):
            values = {row.plan: row for row in mine if row.law == law}
            cells = [_cell(values[plan], stated=table.startswith("power")) if plan in values else "" for plan in plans]
            lines.append(f"| {law} | " + " | ".join(cells) + " |")
        if table == "false supported":
            expected = {row.plan: row.expected for row in mine}
            lines.append(
                "| *exact level of the test* | " + " | ".join(f"*{100 * (expected[plan] or 0):.1f}*" for plan in plans) + " |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(row: Row, *, stated: bool) -> str:
    return f"{100 * row.value:.1f}" + (f" ({100 * (row.expected or 0):.0f})" if stated else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    arguments = parser.parse_args()
    rows = []
    for part in (false_claims, false_equivalence, family_errors, powers, coverage, other_kinds):
        more = part(arguments.studies // 20 if part is other_kinds else arguments.studies)
        print(markdown(more), flush=True)
        rows += more
        print(f"{part.__name__}: done", file=sys.stderr)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
