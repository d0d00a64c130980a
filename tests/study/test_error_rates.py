"""How often verdicts are wrong, on a smaller scale than `benchmarks/study/error_rates.py`, whose functions are used."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.study.synthetic import Runs, lock_of, study

from picolm.study.judge import judge
from picolm.study.statistics.looks import error_of_looks

STUDIES = 1500
PAIR = {"of": "treated", "versus": "plain", "measure": "final"}


@pytest.fixture(scope="module")
def simulation():
    path = Path(__file__).parents[2] / "benchmarks" / "study" / "error_rates.py"
    spec = importlib.util.spec_from_file_location("error_rates", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def at_most(rate: float) -> float:
    """The rate with four standard errors of a simulation of this size: some fifty rates are compared."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / STUDIES)


@pytest.mark.parametrize("looks", [((6,), (0.05,)), ((6, 10), (0.015625, 0.04))])
def test_simulated_studies_get_the_verdicts_that_run_folders_get(simulation, tmp_path, looks):
    seeds = list(range(11, 11 + looks[0][-1]))
    effects = np.random.default_rng(1).standard_normal((3, 5, len(seeds))) * 0.1 + np.array([0.12, 0.05, -0.05])[:, None, None]
    for method, test, kind in (
        ("fixed_sequence", simulation.beyond, {"kind": "difference", "direction": "lower", "at_least": 0.03}),
        ("holm", simulation.within, {"kind": "equivalence", "margin": 0.1}),
    ):
        at = 0.03 if kind["kind"] == "difference" else 0.1
        fast = simulation.verdicts(list(effects), looks[1], looks[0], test, at, method)
        for number in range(effects.shape[1]):
            found = whole_study(tmp_path / f"{method}-{number}", effects[:, number], seeds, looks, method, kind)
            assert [verdict or "inconclusive" for verdict in fast[number]] == found


def whole_study(folder, effects, seeds, looks, method, kind):
    """The verdicts of run folders whose three measures differ by these effects."""
    config = study(
        seeds={"confirm": seeds[: looks[0][0]], "reserve": seeds[looks[0][0] :]},
        stopping={"looks": list(looks[0]), "spend": list(looks[1])},
        measures={f"m{at}": {"series": f"train.m{at}"} for at in range(3)},
        predictions={f"P{at}": {**kind, **PAIR, "measure": f"m{at}"} for at in range(3)},
        family={"method": method},
    )

    def columns(variant, seed):
        lower = effects[:, seeds.index(seed)] if variant == "treated" else np.zeros(3)
        return {f"m{at}": [0.0, 0.0, 0.0, seed - lower[at]] for at in range(3)}

    cells = Runs(config, folder, lambda variant, seed: 3.0, columns=columns).cells()
    return [found.verdict for found in judge(config, cells, lock_of(config)).predictions]


def test_false_claims_stay_at_or_below_the_level_wherever_effects_are_symmetric(simulation):
    plans = (
        simulation.Plan((5,), (0.05,)),
        simulation.Plan((6,), (0.05,)),
        simulation.Plan((10,), (0.05,)),
        *simulation.TWO_LOOKS,
    )
    for row in simulation.false_claims(STUDIES, plans, simulation.SYMMETRIC):
        assert row.value <= at_most(row.expected), row


def test_three_and_four_seeds_never_claim_anything(simulation):
    plans = (simulation.Plan((3,), (0.05,)), simulation.Plan((4,), (0.05,)))
    assert all(row.value == 0 for row in simulation.false_claims(STUDIES, plans, ("normal", "skewed effects, long tail down")))


def test_variants_that_differ_by_the_margin_are_rarely_called_equivalent(simulation):
    plans = (simulation.Plan((6,), (0.05,)), simulation.TWO_LOOKS[0])
    for row in simulation.false_equivalence(STUDIES, plans, simulation.SYMMETRIC):
        assert row.value <= at_most(0.05), row


def test_a_family_of_three_is_wrong_no_more_often_than_one(simulation):
    for row in simulation.family_errors(STUDIES):
        assert row.value <= at_most(0.05), row


def test_the_stated_power_is_the_power(simulation):
    for row in simulation.powers(STUDIES):
        assert row.value == pytest.approx(row.expected, abs=0.045), row


def test_skewed_effects_and_related_seeds_break_the_level_which_the_guide_says(simulation):
    plan = (simulation.Plan((6,), (0.05,)),)
    broken = ("skewed effects, long tail down", "seeds correlated by 0.2")
    rates = {row.law: row.value for row in simulation.false_claims(STUDIES, plan, broken) if row.table == "false supported"}
    assert rates["skewed effects, long tail down"] > 0.15 and rates["seeds correlated by 0.2"] > 0.08
    assert error_of_looks((6,), (0.05,)) < 0.05
