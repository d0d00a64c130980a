"""What a plan says, and what it refuses."""

from __future__ import annotations

import json

import pytest
from statsmodels.stats.power import TTestPower
from tests.study.conftest import InThisProcess, Notes, StudyMaker
from typer.testing import CliRunner

from picolm.cli.study import REFUSED_EXIT_CODE, app
from picolm.records.studydir import StudyDirectory
from picolm.study.locking import draft_lock, lock_to_run
from picolm.study.plan import StudyPlan, memory_of_job, plan_study
from picolm.study.runner import run_study


def planned(directory: StudyDirectory, speed: float | None = 1000.0) -> StudyPlan:
    return plan_study(directory, draft_lock(directory, None), at_once=2, tokens_per_second=speed)


def reasons(directory: StudyDirectory) -> list[str]:
    return [refusal.reason for refusal in planned(directory).refusals]


def test_runs_tokens_and_hours_are_those_of_the_matrix(make_study: StudyMaker) -> None:
    plan = planned(
        make_study(seeds={"tuning": [91, 92], "reserve": [7, 8, 9, 10]}, stopping={"looks": [6, 10], "spend": [0.015625, 0.04]})
    )
    tokens = 4 * 8 * 16
    assert {name: (phase.runs, phase.tokens) for name, phase in plan.phases.items()} == {
        "tuning": (4, 4 * tokens),
        "confirm": (12, 12 * tokens),
        "reserve": (8, 8 * tokens),
    }
    assert plan.core_hours is not None and plan.hours_left is not None
    training = 16 * tokens / 1000 / 3600
    assert training < plan.core_hours < training + 16 * 5 / 3600
    assert plan.hours_left == pytest.approx(plan.core_hours / 2)
    assert plan.refusals == ()


def test_a_tuned_study_counts_the_grid_for_tuning_and_one_value_afterwards(make_study: StudyMaker) -> None:
    tuning = {"key": "training.optimization.lr", "grid": [0.002, 0.01, 0.1], "pick": "loss", "variants": ["usual"]}
    plan = planned(make_study(tuning=tuning))
    assert {name: phase.runs for name, phase in plan.phases.items()} == {"tuning": 2 * (3 + 1), "confirm": 12}


def test_too_few_seeds_are_refused_with_the_number_that_would_do(make_study: StudyMaker) -> None:
    plan = planned(make_study(seeds={"confirm": [1, 2, 3]}))
    (refusal,) = plan.refusals
    assert refusal.reason == "worse: with 3 seeds p is never below 0.125; needed is 0.05"
    assert refusal.mend == "at least 5 seeds at this look"


def test_holm_over_three_with_a_strict_first_look_needs_eight_seeds(make_study: StudyMaker) -> None:
    prediction = {"kind": "difference", "of": "slow", "versus": "usual", "measure": "loss", "direction": "higher"}
    plan = planned(
        make_study(
            seeds={"reserve": [7, 8, 9, 10]},
            predictions={"second": prediction, "third": prediction},
            family={"method": "holm", "order": ["worse", "second", "third"]},
            stopping={"looks": [6, 10], "spend": [0.015625, 0.04]},
        )
    )
    assert len(plan.refusals) == 3
    assert "at least 8 seeds at this look" in plan.refusals[0].mend and "fixed_sequence" in plan.refusals[0].mend


def test_a_two_sided_prediction_needs_one_seed_more(make_study: StudyMaker) -> None:
    plan = planned(make_study(seeds={"confirm": [1, 2, 3, 4, 5]}, predictions={"worse": {"direction": "either"}}))
    (refusal,) = plan.refusals
    assert "at least 6 seeds" in refusal.mend


def test_looks_that_spend_too_much_are_refused(make_study: StudyMaker) -> None:
    study = make_study(seeds={"reserve": [7, 8, 9, 10]}, stopping={"looks": [6, 10], "spend": [0.05, 0.05]})
    (reason,) = reasons(study)
    assert "the looks together accept a false claim in" in reason


def test_an_expectation_that_does_not_exceed_the_threshold_is_refused(make_study: StudyMaker) -> None:
    (reason,) = reasons(make_study(predictions={"worse": {"at_least": 0.2, "expect": 0.1}}))
    assert "what is expected would not support it" in reason


def test_a_study_that_cannot_disagree_is_refused(make_study: StudyMaker) -> None:
    (reason,) = reasons(make_study("unchecked", checks=[]))
    assert "could not have come out otherwise" in reason
    (reason,) = reasons(make_study("same", variants={"slow": {"set": {"training.optimization.lr": 0.01}}}))
    assert "slow and usual are the same run" in reason
    control = [{"kind": "positive_control", "set": {"training.optimization.lr": "x0.01"}, "measure": "loss"}]
    assert reasons(make_study("controlled", checks=control)) == []


def test_budgets_that_cannot_be_equal_are_refused(make_study: StudyMaker) -> None:
    (reason,) = reasons(make_study(variants={"slow": {"set": {"training.max_steps": 8}}}))
    assert "budget.parity asks for equal tokens" in reason


def test_a_study_beyond_its_budget_is_refused(make_study: StudyMaker) -> None:
    study = make_study(budget={"max_core_hours": 1e-4})
    (reason,) = reasons(study)
    assert "core-hours, the budget is 0.0001" in reason
    assert planned(study, speed=None).refusals == ()


def test_an_exploratory_study_is_not_refused_for_its_seeds(make_study: StudyMaker) -> None:
    plan = planned(make_study(mode="exploratory", seeds={"confirm": [1, 2]}, checks=[]))
    assert plan.refusals == () and plan.error_of_looks is None


def test_noise_of_the_tuning_runs_gives_power_and_the_smallest_effect(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [91, 92, 93]}, predictions={"worse": {"expect": 0.5}})
    before = planned(directory)
    assert before.predictions[0].noise is None and before.predictions[0].looks[0].minimum_detectable is None
    lock = lock_to_run(directory)
    run_study(directory, lock, InThisProcess(), Notes(), poll_seconds=0)
    after = plan_study(directory, lock, at_once=2)
    (reach,) = after.predictions
    assert reach.noise is not None and reach.noise_upper is not None and reach.noise < reach.noise_upper
    (look,) = reach.looks
    assert look.minimum_detectable is not None and look.power is not None
    smallest = TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8, alternative="larger")
    assert look.minimum_detectable / reach.noise_upper == pytest.approx(
        smallest, rel=0.1
    )  # of a t test; sign-flips need a little more
    assert after.phases["confirm"].done == 12 and after.hours_left == 0
    assert after.speed == "as the runs that ended took" and set(after.seconds_per_run) == {"usual", "slow"}
    assert memory_of_job(lock) > 700 * 1024**2


def test_the_command_prints_the_plan_and_refuses_with_its_own_exit_code(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"confirm": [1, 2, 3]})
    result = CliRunner().invoke(app, ["plan", str(directory.path), "--speed", "1000", "--json"])
    assert result.exit_code == REFUSED_EXIT_CODE
    facts = json.loads(result.stdout)
    assert facts["phases"]["confirm"]["runs"] == 6 and facts["refusals"][0]["mend"] == "at least 5 seeds at this look"
    text = CliRunner().invoke(app, ["plan", str(directory.path), "--measure"])
    assert "core-minutes, measured here on the first steps of a run" in text.stdout
    assert not directory.lock_file.exists() and not directory.runs.exists()
    refused = CliRunner().invoke(app, ["run", str(directory.path)])
    assert refused.exit_code == REFUSED_EXIT_CODE and not directory.runs.exists()
