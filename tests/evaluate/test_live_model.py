"""Evaluation inside a training run: scores of the live model, and a training that does not notice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import pytest

from picolm.base.errors import PicoError
from picolm.records.evaluation import read_scores, read_settings
from picolm.records.rundir import RunDirectory
from picolm.train.train import run_training

from ..train.conftest import ConfigMaker, make_config, tiny_data  # noqa: F401
from ..train.recording import Recording, all_equal, weights

DRAWS = """
import random, numpy, torch
def score(scorer):
    return random.random() + numpy.random.rand() + float(torch.rand(()))
"""


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Evaluations of every sort that needs no network, one of which draws random numbers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(DRAWS)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"sentence_good": "the cat sees.", "sentence_bad": "cat the sees."}) + "\n")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "the small dog hears a bird that sleeps. " * 8}) + "\n")
    (tmp_path / "questions.jsonl").write_text(json.dumps({"query": "the cat", "choices": ["sees", "a"], "gold": 0}) + "\n")
    return [
        "perplexity",
        {"name": "perplexity", "data": "text.jsonl", "label": "text", "window": 8, "stride": 2},
        {"name": "minimal_pairs", "data": "pairs.jsonl"},
        {"name": "multiple_choice", "data": "questions.jsonl"},
        {"name": "samples", "prompts": ["the"], "max_new_tokens": 6, "temperature": 1.0},
        "./mine.py:score",
    ]


def test_training_is_bit_identical_with_evaluation_and_capture_on_or_off(make_config: ConfigMaker, everything):  # noqa: F811
    def run(name: str, metrics: list[object] | None, capture: bool) -> Path:
        dynamics = {"learning_dynamics": {"enabled": capture}}
        return run_training(make_config(name, evaluation={"metrics": metrics}, checkpointing=dynamics), Recording()).run

    plain = run("off", None, False)
    for watched in (run("evaluated", everything, False), run("captured", None, True), run("both", everything, True)):
        for step in (0, 1, 2, 5, 8):
            assert all_equal(weights(plain, step), weights(watched, step))


def test_every_checkpoint_gets_scores_settings_and_texts(make_config: ConfigMaker, everything):  # noqa: F811
    run = RunDirectory(run_training(make_config(evaluation={"metrics": everything}), Recording()).run)
    rows = read_scores(run)
    assert sorted(set(rows.step)) == run.steps() == [0, 1, 2, 5, 8]
    assert set(rows.evaluation) == {"perplexity", "text", "minimal_pairs", "multiple_choice", "score"}
    loss = rows[(rows.evaluation == "perplexity") & (rows.measure == "loss_per_token")].set_index("step").value
    assert loss[8] < loss[0]
    settings = read_settings(run, 5)
    assert settings["text"]["window"] == 8 and settings["samples"]["samples"][0]["prompt"] == "the"
    assert {"data_hash", "prefix_token_id", "precision", "seconds"} <= set(settings["perplexity"])


def test_scores_of_the_live_model_are_those_of_the_checkpoint(make_config: ConfigMaker, everything):  # noqa: F811
    from picolm.evaluate.contract import build_evaluations, check_evaluations, run_evaluations
    from picolm.evaluate.subject import find_subjects, run_data, run_evaluation_config

    run = RunDirectory(run_training(make_config(evaluation={"metrics": everything[:4]}), Recording()).run)
    live = read_scores(run)
    for subject in find_subjects(str(run.path), None):
        tokenizer = subject.load_tokenizer()
        evaluations = build_evaluations(run_evaluation_config(run), data=run_data(run), tokenizer=tokenizer, max_seq_len=16)
        check_evaluations(evaluations)
        again = run_evaluations(evaluations, subject.load_model(), tokenizer).scores
        mine = live[live.step == subject.step]
        assert [score.value for score in again] == pytest.approx(mine.value.to_list(), rel=1e-6)


def test_every_mistake_in_an_evaluation_is_told_at_once_before_anything_is_written(
    make_config: ConfigMaker,  # noqa: F811
    everything,
    tmp_path: Path,
):
    (tmp_path / "label.jsonl").write_text(json.dumps({"query": "the cat", "choices": ["sees", "a"], "gold": 2}) + "\n")
    (tmp_path / "long.jsonl").write_text(json.dumps({"sentence_good": "the cat sees. " * 9, "sentence_bad": "a"}) + "\n")
    (tmp_path / "empty.jsonl").write_text("")
    pq.write_table(pyarrow.table({"input_ids": [[1, 2, 9999]]}), tmp_path / "ids.parquet")
    wrong = [
        ({"name": "blimp", "data": "text.jsonl"}, "has no column `sentence_good`"),
        ({"name": "multiple_choice", "data": "label.jsonl", "label": "label"}, r"right answer \[2\] of 2 choices"),
        ({"name": "minimal_pairs", "data": "long.jsonl", "label": "long"}, "the model accepts 16"),
        ({"name": "perplexity", "data": "empty.jsonl", "label": "empty"}, "is empty"),
        ({"name": "perplexity", "data": "ids.parquet", "label": "ids"}, "holds token id 9999; the model knows 320"),
        ({"name": "perplexity", "window": 17, "label": "wide"}, "is more than the 16 tokens the model accepts"),
    ]
    config = make_config(evaluation={"metrics": [*everything, *(entry for entry, _ in wrong)]})
    with pytest.raises(PicoError) as caught:
        run_training(config, Recording())
    for entry, message in wrong:
        assert re.search(f"evaluation `{entry.get('label', entry['name'])}`: .*{message}", caught.value.message)
    run = RunDirectory(Path(config.checkpointing.runs_dir) / "tiny")
    assert not run.checkpoints.exists() and not run.evaluations.exists()
