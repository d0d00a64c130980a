from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from picolm.base.config import parse_settings, parse_yaml
from picolm.base.errors import PicoError
from picolm.evaluate.contract import EvaluationConfig, Given, build_evaluations, run_evaluations
from picolm.evaluate.samples import Samples
from picolm.records.evaluation import read_settings, write_scores
from picolm.records.rundir import RunDirectory


def built(text: str, tokenizer, max_seq_len: int):
    config = parse_settings(EvaluationConfig, parse_yaml(text, "test"), "test")
    return build_evaluations(config, tokenizer=tokenizer, max_seq_len=max_seq_len)


def test_a_greedy_continuation_is_the_most_probable_next_token_again_and_again(decoder, bigram, tokenizer):
    for model in (decoder, bigram):
        evaluations = built("metrics: [{name: samples, prompts: [ab], max_new_tokens: 5}]", tokenizer, model.max_seq_len)
        evaluations[0].check()
        scores, settings = run_evaluations(evaluations, model, tokenizer)
        tokens = [256, *b"ab"]
        with torch.no_grad():
            for _ in range(5):
                tokens.append(int(model.eval()(torch.tensor([tokens]))[0, -1].argmax()))
        made = tokens[3:]
        expected = tokenizer.decode(made[: made.index(256)] if 256 in made else made)
        assert scores == [] and settings["samples"]["samples"] == [{"prompt": "ab", "continuation": expected}]


def test_drawn_continuations_are_the_same_at_each_checkpoint_and_leave_random_streams_alone(decoder, tokenizer):
    evaluations = built("metrics: [{name: samples, prompts: [ab], max_new_tokens: 9, temperature: 1.0}]", tokenizer, 32)
    evaluations[0].check()
    before = torch.get_rng_state()
    first, second = (run_evaluations(evaluations, decoder, tokenizer).settings["samples"]["samples"] for _ in range(2))
    assert first == second and torch.equal(before, torch.get_rng_state())


def test_a_users_evaluation_may_draw_random_numbers_without_disturbing_anyone(bigram, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import random, numpy, torch\n"
        "def score(scorer):\n    return random.random() + numpy.random.rand() + float(torch.rand(()))\n"
    )
    monkeypatch.chdir(tmp_path)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    run_evaluations(built("metrics: ['./mine.py:score']", tokenizer, 16), bigram, tokenizer)
    assert states[0] == random.getstate()
    assert (states[1] == np.random.get_state()[1]).all() and torch.equal(states[2], torch.get_rng_state())


def test_texts_are_kept_in_the_evaluation_file_of_the_step(decoder, tokenizer, tmp_path):
    evaluations = built("metrics: [{name: samples, prompts: [a, b], max_new_tokens: 3}]", tokenizer, 32)
    evaluations[0].check()
    run = RunDirectory(tmp_path / "run")
    write_scores(run, 4, 40, *run_evaluations(evaluations, decoder, tokenizer))
    assert [sample["prompt"] for sample in read_settings(run, 4)["samples"]["samples"]] == ["a", "b"]


def test_prompts_that_cannot_be_continued_are_refused_by_check(tokenizer):
    with pytest.raises(PicoError, match="makes 57 tokens; the model accepts 32"):
        Samples(prompts=("a" * 8,)).check(Given(None, tokenizer, 32))
    with pytest.raises(PicoError, match="`prompts` is empty"):
        Samples(prompts=()).check(Given(None, tokenizer, 32))
