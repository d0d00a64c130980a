from __future__ import annotations

import pytest
import torch

from picolm.base.config import parse_settings, parse_yaml
from picolm.evaluate.cadence import Cadence, resume_cadence, skipped_settings
from picolm.evaluate.contract import EvaluationConfig, build_evaluations
from picolm.evaluate.live import LiveEvaluation
from picolm.records.evaluation import read_scores, read_settings, write_scores
from picolm.records.items import ItemValues, read_items
from picolm.records.rundir import RunDirectory

TEXT = "metrics: [{name: perplexity, label: often, every_n_steps: 10}, {name: perplexity, label: slow}]"


def cadence(budget: float | None = None) -> Cadence:
    config = parse_settings(EvaluationConfig, parse_yaml(TEXT, "test"), "test")
    return Cadence(build_evaluations(config), last_step=95, budget=budget)


def labels(due) -> list[str]:
    return [named.label for named in due.evaluations]


def test_an_evaluation_runs_at_checkpoints_or_at_its_own_pace_and_at_the_end():
    plan = cadence()
    assert labels(plan.due(0, is_checkpoint=True, training_seconds=0)) == ["often", "slow"]
    assert labels(plan.due(5, is_checkpoint=True, training_seconds=1)) == ["slow"]
    assert labels(plan.due(20, is_checkpoint=False, training_seconds=1)) == ["often"]
    assert labels(plan.due(95, is_checkpoint=True, training_seconds=1)) == ["often", "slow"]
    assert labels(plan.due(21, is_checkpoint=False, training_seconds=1)) == []


def test_the_budget_is_kept_after_the_first_run_and_what_is_left_out_is_said():
    plan = cadence(budget=0.1)
    assert labels(plan.due(0, is_checkpoint=True, training_seconds=0)) == ["often", "slow"]
    plan.note_seconds({"often": {"seconds": 1.0}, "slow": {"seconds": 8.0}})
    due = plan.due(10, is_checkpoint=True, training_seconds=100.0)
    assert labels(due) == ["often"]
    assert skipped_settings(due)["slow"]["skipped"] == (
        "would take about 8.0 s; 9.0 s of 100.0 s of training are spent, the budget is 0.1"
    )
    assert labels(plan.due(20, is_checkpoint=True, training_seconds=170.1)) == ["often"]
    assert labels(plan.due(20, is_checkpoint=True, training_seconds=180.1)) == ["often", "slow"]
    assert labels(plan.due(95, is_checkpoint=True, training_seconds=1.0)) == ["often", "slow"], "the last step is never left out"
    assert plan.report(100.0) == "evaluation took 9.0 s, 0.09 of the training time (budget 0.1)"


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.5])
def test_over_a_whole_run_no_more_than_the_budget_is_spent_beyond_the_first_and_last_run(budget):
    plan, training_seconds = cadence(budget), 0.0
    cost = {"often": 3.0, "slow": 5.0}
    for step in range(95):
        due = plan.due(step, is_checkpoint=step % 5 == 0, training_seconds=training_seconds)
        plan.note_seconds({label: {"seconds": cost[label]} for label in labels(due)})
        training_seconds += 4.0
    assert plan.spent_seconds <= max(8.0, budget * training_seconds)
    assert plan.spent_seconds >= min(0.6 * budget * training_seconds, 9 * 3.0)


def test_a_continued_run_keeps_its_account(tmp_path):
    run = RunDirectory(tmp_path / "run")
    write_scores(run, 0, 0, [], {"often": {"seconds": 2.0}, "slow": {"seconds": 5.0}})
    write_scores(run, 10, 0, [], {"often": {"seconds": 3.0}, "slow": {"skipped": "because"}})
    plan = cadence(budget=0.1)
    resume_cadence(plan, run)
    assert plan.spent_seconds == 10.0 and plan.last_seconds == {"often": 3.0, "slow": 5.0}
    assert read_settings(run, 10)["slow"] == {"skipped": "because"}


def test_a_run_gets_scores_of_what_is_due_and_a_reason_for_what_is_left_out(tmp_path, monkeypatch, bigram, tokenizer):
    (tmp_path / "mine.py").write_text(
        "import time\ndef slow(scorer):\n    time.sleep(0.2)\n    return 1.0\ndef quick(scorer):\n    return 2.0\n"
    )
    monkeypatch.chdir(tmp_path)
    config = parse_settings(
        EvaluationConfig,
        parse_yaml("{metrics: ['./mine.py:slow', {name: './mine.py:quick', every_n_steps: 3}], budget: 0.01}", "t"),
        "t",
    )
    run = RunDirectory(tmp_path / "run")

    def live() -> LiveEvaluation:
        built = build_evaluations(config, tokenizer=tokenizer)
        device = torch.device("cpu")
        return LiveEvaluation(built, config, run, tokenizer=tokenizer, last_step=9, device=device, precision="32-true")

    first = live()
    assert [first.is_turn(step, is_checkpoint=False) for step in (0, 1, 3, 9)] == [True, False, True, True]
    assert labels(first.at(0, 0, bigram, is_checkpoint=True, training_seconds=0.0)) == ["slow", "quick"]
    due = live().at(3, 30, bigram, is_checkpoint=True, training_seconds=2.0)
    assert "slow" in due.skipped and "would take about 0.2 s" in read_settings(run, 3)["slow"]["skipped"]
    assert labels(live().at(6, 60, bigram, is_checkpoint=True, training_seconds=100.0)) == ["slow", "quick"]
    assert labels(live().at(9, 90, bigram, is_checkpoint=True, training_seconds=0.0)) == ["slow", "quick"]
    rows = read_scores(run)
    assert set(rows[rows.evaluation == "slow"].step) == {0, 6, 9} and set(rows[rows.evaluation == "quick"].step) >= {0, 6, 9}


def test_the_last_step_of_a_run_keeps_single_items(tmp_path, monkeypatch, bigram, tokenizer):
    (tmp_path / "mine.py").write_text(
        "from picolm.evaluate.contract import Evaluation\nfrom picolm.records.items import ItemValues\n"
        "class Three(Evaluation):\n"
        "    def check(self, given): pass\n"
        "    def run(self, scorer): return []\n"
        "    def settings(self, scorer): return {}\n"
        "    def item_values(self): return ItemValues('accuracy', [1.0, 0.0, 1.0])\n"
    )
    monkeypatch.chdir(tmp_path)
    config = parse_settings(EvaluationConfig, {"metrics": ["./mine.py:Three"]}, "t")
    run = RunDirectory(tmp_path / "run")
    built = build_evaluations(config, tokenizer=tokenizer)
    live = LiveEvaluation(built, config, run, tokenizer=tokenizer, last_step=9, device=torch.device("cpu"), precision="32-true")
    for step in (0, 9):
        live.at(step, 10 * step, bigram, is_checkpoint=True, training_seconds=1.0)
    assert read_items(run, 9, "Three") == ItemValues("accuracy", [1.0, 0.0, 1.0])
    assert read_items(run, 0, "Three") is None
