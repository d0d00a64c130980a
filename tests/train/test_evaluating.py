"""Evaluation inside the loop: at checkpoints, at its own pace, within a budget that is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording


def evaluated_steps(run: Path) -> dict[int, list[str]]:
    """Step -> names of the evaluations with scores."""
    files = sorted((run / "evaluation").glob("step_*.json"), key=lambda path: int(path.stem.removeprefix("step_")))
    contents = [json.loads(path.read_text()) for path in files]
    return {content["step"]: sorted({score["evaluation"] for score in content["scores"]}) for content in contents}


def test_an_evaluation_may_have_a_pace_of_its_own(make_config: ConfigMaker, tiny_data: Path):
    metrics = [
        {"name": "perplexity", "data": str(tiny_data)},
        {"name": "perplexity", "data": str(tiny_data), "label": "often", "every_n_steps": 3},
    ]
    observer = Recording()
    run = run_training(make_config(evaluation={"metrics": metrics}), observer).run
    both, often, checkpoint = ["often", "perplexity"], ["often"], ["perplexity"]
    assert evaluated_steps(run) == {0: both, 1: checkpoint, 2: checkpoint, 3: often, 5: checkpoint, 6: often, 8: both}
    assert any(sentence.startswith("evaluation took") for sentence in observer.sentences)


def test_a_budget_leaves_evaluations_out_and_says_so(make_config: ConfigMaker, tiny_data: Path):
    evaluation = {"metrics": [{"name": "perplexity", "data": str(tiny_data)}], "budget": 1e-9}
    run = run_training(make_config(evaluation=evaluation), Recording()).run
    steps = evaluated_steps(run)
    assert steps[0] == steps[8] == ["perplexity"]
    assert steps[2] == []
    skipped = json.loads((run / "evaluation" / "step_2.json").read_text())["settings"]["perplexity"]["skipped"]
    assert "the budget is 1e-09" in skipped


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_a_run_of_any_precision_is_evaluated(make_config: ConfigMaker, tiny_data: Path, precision: str):
    evaluation = {"metrics": [{"name": "perplexity", "data": str(tiny_data)}]}
    run = run_training(
        make_config(training={"max_steps": 1, "fabric": {"precision": precision}}, evaluation=evaluation), Recording()
    ).run
    assert evaluated_steps(run)[1] == ["perplexity"]
