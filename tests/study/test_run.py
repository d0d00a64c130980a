"""Carrying out the matrix: order, resumption, reuse, failures."""

from __future__ import annotations

import json

import pytest
from tests.study.conftest import InThisProcess, Notes, StudyMaker

from picolm.base.errors import PicoError
from picolm.records import trainlog
from picolm.records.studydir import StudyDirectory
from picolm.study.lock import StudyLock, read_lock
from picolm.study.locking import lock_to_run
from picolm.study.matrix import cells
from picolm.study.receipt import read_receipt
from picolm.study.runner import RunOutcome, Stage, run_study, steps_of
from picolm.train.lock import RunLock


def carry_out(directory: StudyDirectory, executor: InThisProcess, notes: Notes | None = None) -> RunOutcome:
    lock = lock_to_run(directory)
    return run_study(directory, lock, executor, notes or Notes(), poll_seconds=0)


def table(directory: StudyDirectory, lock: StudyLock) -> dict[tuple[str, int], list[float]]:
    """What was measured, without clocks."""
    return {
        (cell.variant, cell.seed): [row["loss"] for row in trainlog.read_rows(cell.run.log_file)]
        for cell in cells(directory, lock)
    }


def test_runs_go_round_by_round_so_that_what_is_there_is_paired(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [91], "confirm": [1, 2, 3]})
    executor, notes = InThisProcess(), Notes()
    outcome = carry_out(directory, executor, notes)
    assert outcome.complete and not outcome.failed and outcome.ended == 8
    assert executor.runs == [f"{variant}-seed-{seed}" for seed in (91, 1, 2, 3) for variant in ("usual", "slow")]
    assert notes.steps[-1] == 6 * 4 and notes.totals == [8, 24]
    facts = directory.run("slow-seed-3").identity()
    lock = read_lock(directory.lock_file)
    assert (facts["variant"], facts["seed"], facts["study"]) == ("slow", 3, {"id": "tiny-study", "lock": lock.hash})
    assert facts["environment"]["threads"] == 1


def test_a_second_call_finds_nothing_to_do(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [], "confirm": [1, 2, 3]})
    carry_out(directory, InThisProcess())
    again = InThisProcess()
    assert carry_out(directory, again).complete
    assert again.runs == []


def test_a_study_cut_short_ends_with_the_same_table(make_study: StudyMaker) -> None:
    seeds = {"seeds": {"tuning": [], "confirm": [1, 2, 3]}}
    whole = make_study("whole", **seeds)
    carry_out(whole, InThisProcess())

    cut = make_study("cut", **seeds)
    executor = InThisProcess()

    def fail_at_second(job: object) -> None:
        if len(executor.jobs) == 2:  # later runs share a process, and how many do depends on how long the first took
            raise KeyboardInterrupt

    executor.before = fail_at_second
    with pytest.raises(KeyboardInterrupt):
        carry_out(cut, executor)
    last = executor.runs[0]
    cut.receipt(last).unlink()  # killed between the end of a run and its receipt
    assert carry_out(cut, InThisProcess()).complete
    lock = read_lock(whole.lock_file)
    assert table(cut, read_lock(cut.lock_file)) == table(whole, lock) and len(table(whole, lock)) == 6


def test_runs_of_one_process_are_those_of_many(make_study: StudyMaker) -> None:
    """Several runs in a process, in another order: the same numbers as each run alone."""
    seeds = {"seeds": {"tuning": [], "confirm": [1, 2, 3]}}
    together, alone = make_study("together", **seeds), make_study("alone", **seeds)
    carry_out(together, InThisProcess())
    lock = lock_to_run(alone)
    for cell in reversed(cells(alone, lock)):
        Stage(alone, lock, InThisProcess(), Notes(), steps_of(lock), 0).carry_out([cell])
    assert table(alone, lock) == table(together, read_lock(together.lock_file))


def test_a_second_process_is_refused(make_study: StudyMaker) -> None:
    directory = make_study()
    lock = lock_to_run(directory)
    with RunLock(directory.running_file), pytest.raises(PicoError, match="another process carries this study out"):
        run_study(directory, lock, InThisProcess(), Notes())


def test_one_failed_run_does_not_stop_the_others_and_is_repeated(make_study: StudyMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    from picolm.study import worker

    train, attempts = worker._train, []

    def sometimes(job: dict[str, object], cell: dict[str, object], observer: object) -> bool:
        attempts.append(cell["run"])
        if cell["run"] == "slow-seed-2" and attempts.count("slow-seed-2") <= failures:
            raise RuntimeError("the moon was in the wrong house")
        return train(job, cell, observer)  # type: ignore[arg-type]

    monkeypatch.setattr(worker, "_train", sometimes)
    failures = 1
    directory = make_study(seeds={"tuning": [], "confirm": [1, 2, 3]})
    notes = Notes()
    outcome = carry_out(directory, InThisProcess(), notes)
    assert outcome.complete and not outcome.failed
    assert "slow-seed-2 crashed and is repeated: RuntimeError: the moon was in the wrong house" in notes.said

    attempts.clear()
    failures = 2
    again = make_study("again", seeds={"tuning": [], "confirm": [1, 2, 3]})
    outcome = carry_out(again, InThisProcess())
    assert not outcome.complete and outcome.failed == ("slow-seed-2: RuntimeError: the moon was in the wrong house",)
    assert outcome.ended == 5
    assert carry_out(again, InThisProcess()).complete


def test_a_diverged_run_has_ended_and_is_not_repeated(make_study: StudyMaker) -> None:
    directory = make_study(
        seeds={"tuning": [], "confirm": [1, 2, 3]},
        base={"training": {"max_skipped_updates": 0, "optimization": {"lr": 1e30}}},
        variants={"slow": {"set": {"training.optimization.lr": 0.01}}},
    )
    executor, notes = InThisProcess(), Notes()
    assert carry_out(directory, executor, notes).complete
    receipt = read_receipt(directory, "usual-seed-1")
    assert receipt is not None and receipt["status"] == "diverged" and "not finite" in receipt["reason"]
    assert ("slow-seed-1", "complete") in notes.ends
    again = InThisProcess()
    carry_out(directory, again)
    assert again.runs == []


def test_variants_that_are_the_same_run_share_it(make_study: StudyMaker) -> None:
    directory = make_study(
        seeds={"tuning": [], "confirm": [1, 2, 3]},
        variants={"also_usual": {"role": "control", "set": {"training.optimization.lr": 0.01}}},
    )
    executor = InThisProcess()
    carry_out(directory, executor)
    assert len(executor.runs) == len(set(executor.runs)) == 6
    lock = read_lock(directory.lock_file)
    assert {cell.run.name for cell in cells(directory, lock) if cell.variant == "also_usual"} == {
        cell.run.name for cell in cells(directory, lock) if cell.variant == "usual"
    }


def test_the_tuned_value_is_picked_on_the_tuning_seeds_alone(make_study: StudyMaker) -> None:
    directory = make_study(
        tuning={"key": "training.optimization.lr", "grid": [1e-6, 0.01], "pick": "loss", "variants": ["usual"]},
        seeds={"tuning": [91, 92], "confirm": [1, 2, 3]},
    )
    executor, notes = InThisProcess(), Notes()
    assert carry_out(directory, executor, notes).complete
    assert executor.runs[:6] == [
        *("usual-1e-06-seed-91", "usual-0.01-seed-91", "slow-seed-91"),
        *("usual-1e-06-seed-92", "usual-0.01-seed-92", "slow-seed-92"),
    ]
    assert executor.runs[6:8] == ["usual-0.01-seed-1", "slow-seed-1"] and len(executor.runs) == 12
    record = json.loads(directory.tuning_file.read_text())
    assert record["picks"]["usual"]["value"] == 0.01 and record["picks"]["usual"]["at_the_edge"]
    assert "tuned: usual with training.optimization.lr = 0.01" in notes.said
    again = InThisProcess()
    carry_out(directory, again)
    assert again.runs == []


def test_a_positive_control_is_run_on_the_tuning_seeds_with_the_variants_own_value(make_study: StudyMaker) -> None:
    control = {
        "kind": "positive_control",
        "name": "frozen",
        "set": {"training.optimization.lr": "x0.01"},
        "measure": "loss",
    }
    directory = make_study(checks=[control], seeds={"tuning": [91], "confirm": [1, 2, 3]})
    executor = InThisProcess()
    carry_out(directory, executor)
    assert executor.runs[:3] == ["usual-seed-91", "slow-seed-91", "frozen-seed-91"]
    lock = read_lock(directory.lock_file)
    (control_cell,) = [cell for cell in cells(directory, lock) if cell.phase == "control"]
    assert control_cell.variant == "usual" and "training.optimization.lr=0.0001" in control_cell.overrides
    config = directory.run("frozen-seed-91").config_file.read_text()
    assert "lr: 0.0001" in config
