from __future__ import annotations

import json
import math

import pytest

from picolm.base.config import dump_yaml, parse_settings, parse_yaml
from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, EvaluationConfig, build_evaluations, run_evaluations
from picolm.evaluate.written import parse_metric
from picolm.records.evaluation import read_scores, read_settings, write_scores
from picolm.records.rundir import RunDirectory


def config(text: str) -> EvaluationConfig:
    return parse_settings(EvaluationConfig, parse_yaml(text, "test"), "test.yaml")


def test_the_default_is_the_originals():
    default = EvaluationConfig()
    assert [entry.name for entry in default.entries] == ["paloma"]
    assert default.options_of(default.entries[0]) == {
        "dataset_name": "pico-lm/pretokenized-paloma-tinsy",
        "dataset_split": "val",
        "max_length": 2048,
        "batch_size": 16,
    }


@pytest.mark.parametrize("text", ["metrics: null", "paloma: {dataset_name: null}", "metrics: []"])
def test_evaluations_can_be_switched_off(text):
    assert config(text).entries == ()


def test_options_ride_along_over_the_section_of_the_same_name():
    found = config("{metrics: [{name: paloma, limit: 3, max_length: 64}, perplexity], paloma: {dataset_name: here}}")
    paloma, perplexity = found.entries
    assert found.options_of(paloma)["dataset_name"] == "here" and found.options_of(paloma)["max_length"] == 64
    assert found.options_of(perplexity) == {}


def test_a_configuration_survives_being_written():
    written = config("metrics: [perplexity, {name: minimal_pairs, data: x, label: y}]")
    assert parse_settings(EvaluationConfig, parse_yaml(dump_yaml(written), "test"), "test") == written
    assert parse_settings(EvaluationConfig, parse_yaml(dump_yaml(EvaluationConfig()), "test"), "test") == EvaluationConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: [perplexitee]", "evaluation `perplexitee` is not known\nhint: did you mean `perplexity`"),
        ("metrics: [{name: perplexity, windw: 3}]", "windw is not a setting\nhint: did you mean `window`"),
        ("metrics: [{name: perplexity, window: 0}]", "greater than 0"),
        ("metrics: [minimal_pairs]", "data must be given"),
        ("metrics: [perplexity, perplexity]", "two evaluations are called `perplexity`"),
        ("metrics: [os:sep]", "neither an Evaluation nor a function"),
    ],
)
def test_wrong_names_and_options_are_refused_before_anything_runs(text, message):
    with pytest.raises(PicoError, match=message):
        build_evaluations(config(text))


def test_an_unreachable_data_set_is_an_error_that_names_the_setting():
    (paloma,) = build_evaluations(EvaluationConfig())
    with pytest.raises(PicoError) as caught:
        paloma.check()
    assert caught.value.message.startswith(
        "evaluation `paloma`: evaluation.paloma.dataset_name: pico-lm/pretokenized-paloma-tinsy is neither a local path nor"
    )
    assert "--set evaluation.paloma.dataset_name=PATH" in caught.value.hint


def test_a_users_function_is_an_evaluation(tmp_path, monkeypatch, bigram, tokenizer):
    (tmp_path / "mine.py").write_text(
        "def score(scorer, *, text: str = 'ab', factor: float = 1.0):\n"
        "    return {'log_prob': factor * scorer.text_log_probs([text])[0], 'nothing': float('nan')}\n"
    )
    monkeypatch.chdir(tmp_path)
    evaluations = build_evaluations(config("metrics: [{name: './mine.py:score', factor: 2}]"), tokenizer=tokenizer)
    evaluations[0].check()
    scores, settings = run_evaluations(evaluations, bigram, tokenizer)
    assert (scores[0].evaluation, scores[0].measure) == ("score", "log_prob")
    assert scores[0].value == pytest.approx(2 * bigram.log_prob([256, *b"ab"]), rel=1e-6)
    assert scores[1].value is None and scores[1].note == "the value is nan"
    assert settings["score"]["factor"] == 2.0 and settings["score"]["prefix_token_id"] == 256


def test_a_function_with_the_wrong_parameters_is_refused_by_check(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def score(scorer, other):\n    return 0.0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PicoError, match="takes 2 positional parameters, not one"):
        build_evaluations(config("metrics: ['./mine.py:score']"))[0].check()


def test_scores_of_two_evaluations_land_in_the_run_under_their_labels(tmp_path, write_jsonl, bigram, tokenizer):
    path = write_jsonl("text.jsonl", [{"text": "some text"}])
    pairs = write_jsonl("pairs.jsonl", [{"sentence_good": "a", "sentence_bad": "b"}])
    text = f"metrics: [{{name: perplexity, data: {path}, label: mine}}, {{name: minimal_pairs, data: {pairs}}}]"
    evaluations = build_evaluations(config(text), tokenizer=tokenizer, max_seq_len=16)
    for evaluation in evaluations:
        evaluation.check()
    run = RunDirectory(tmp_path / "run")
    write_scores(run, 7, 70, *run_evaluations(evaluations, bigram, tokenizer))
    rows = read_scores(run)
    assert set(rows.evaluation) == {"mine", "minimal_pairs"} and set(rows.step) == {7}
    loss = rows[(rows.evaluation == "mine") & (rows.measure == "loss_per_token")].value.item()
    assert math.isfinite(loss)
    settings = read_settings(run, 7)
    assert json.loads(json.dumps(settings)) == settings and settings["minimal_pairs"]["ties"] == "count as wrong"


@pytest.mark.parametrize("entry", EVALUATIONS.entries(), ids=lambda entry: entry.name)
def test_every_registered_evaluation_follows_the_contract(entry):
    assert issubclass(entry.object, Evaluation) and entry.sentence.endswith(".")


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("perplexity", {"name": "perplexity"}),
        ("perplexity:data=a/b,window=8", {"name": "perplexity", "data": "a/b", "window": 8}),
        ("./mine.py:score", {"name": "./mine.py:score"}),
        ("./mine.py:score:limit=5,text=a,b", {"name": "./mine.py:score", "limit": 5, "text": "a,b"}),
        ("minimal_pairs:data=x,delimiter=' '", {"name": "minimal_pairs", "data": "x", "delimiter": " "}),
    ],
)
def test_evaluations_are_read_off_the_command_line(text, entry):
    assert parse_metric(text) == entry
