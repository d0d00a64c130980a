from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from picolm.base.errors import PicoError
from picolm.evaluate.arc import ArcEasy, arc_item
from picolm.evaluate.choice import Answer, Item, MultipleChoice, choice_scores
from picolm.evaluate.contract import Given
from picolm.evaluate.files import Record, read_records
from picolm.evaluate.hellaswag import HellaSwag, hellaswag_item
from picolm.evaluate.scorer import Scorer
from picolm.evaluate.truthfulqa import TruthfulQA, mc1_item, mc2_item


def scores(evaluation: Any, model: Any, tokenizer: Any) -> dict[tuple[str, str], Any]:
    evaluation.check(Given(None, tokenizer, model.max_seq_len))
    with Scorer(model, tokenizer) as scorer:
        return {(score.group, score.measure): score for score in evaluation.run(scorer)}


def answer(log_probs: list[float], correct: tuple[int, ...] = (0,), choices: tuple[str, ...] | None = None) -> Answer:
    return Answer(Item("", choices or tuple("x" * len(log_probs)), correct), np.array(log_probs))


def test_each_choice_is_scored_as_a_continuation_of_the_query(bigram, tokenizer, write_jsonl):
    path = write_jsonl("q.jsonl", [{"query": "ab", "choices": ["c", "dd", "eee"], "gold": 1}])
    evaluation = MultipleChoice(data=str(path))
    found = scores(evaluation, bigram, tokenizer)
    by_hand = [bigram.log_prob([*b"ab ", *choice], start=2) for choice in (b"c", b"dd", b"eee")]
    assert found["all", "log_prob_of_answer"].value == pytest.approx(by_hand[1], rel=1e-6)
    assert found["all", "accuracy"].value == float(np.argmax(by_hand) == 1)
    by_length = np.argmax(np.array(by_hand) / [1, 2, 3])
    assert found["all", "accuracy_per_character"].value == float(by_length == 1)
    assert found["all", "accuracy"].baseline == pytest.approx(1 / 3)


def test_a_tie_for_the_first_place_counts_as_wrong_and_is_stated():
    found = choice_scores([answer([-1.0, -1.0, -2.0]), answer([-1.0, -2.0, -2.0]), answer([-3.0, -1.0, -1.0])])
    assert found[0].value == pytest.approx(1 / 3)
    assert found[0].note == "1 tied item, counted as wrong"


def test_a_model_that_finds_everything_equally_probable_gets_nothing_for_the_right_answer_standing_first(
    bigram, tokenizer, write_jsonl
):
    """TruthfulQA puts the right answer of MC1 first: `first of the best` would give such a model 100 %."""
    import torch

    with torch.no_grad():
        bigram.table_VV.zero_()
    targets = {"aa": 1, "bb": 0, "cc": 0}
    questions = [{"question": "?", "mc1_targets": targets, "mc2_targets": {"aa": 1, "bb": 1, "cc": 0}} for _ in range(4)]
    path = write_jsonl("t.jsonl", questions)
    found = scores(TruthfulQA(data=str(path)), bigram, tokenizer)
    assert found["all", "accuracy"].value == 0.0 and "4 tied items" in found["all", "accuracy"].note
    assert found["all", "probability_of_true"].value == pytest.approx(2 / 3)
    assert found["all", "probability_of_true"].baseline == pytest.approx(2 / 3)


def test_the_share_of_true_answers_does_not_underflow():
    assert answer([-5000.0, -5001.0], (0,)).right_share == pytest.approx(1 / (1 + np.exp(-1)))


def test_chance_follows_the_number_of_choices(bigram, tokenizer, write_jsonl):
    def question(count: int, labels: str) -> dict[str, Any]:
        return {
            "question": "q",
            "choices": {"text": list("abcde")[:count], "label": list(labels)[:count]},
            "answerKey": labels[1],
        }

    path = write_jsonl("arc.jsonl", [question(3, "ABCDE"), question(4, "1234"), question(5, "ABCDE")])
    found = scores(ArcEasy(data=str(path)), bigram, tokenizer)
    assert found["all", "accuracy"].baseline == pytest.approx(np.mean([1 / 3, 1 / 4, 1 / 5]))


@pytest.mark.parametrize(
    ("item_of", "values", "message"),
    [
        (
            arc_item,
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "1"},
            "answerKey `1` is none of the labels",
        ),
        (arc_item, {"question": "q", "choices": ["a", "b"], "answerKey": "A"}, "must hold the lists `text` and `label`"),
        (hellaswag_item, {"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "label": 1}, "has no column `endings`"),
        (
            hellaswag_item,
            {"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": ["x"], "label": "z"},
            "not a whole number",
        ),
        (mc1_item, {"question": "q", "mc1_targets": {"a": 1, "b": 1}}, "has 2 true answers, not one"),
        (mc2_item, {"question": "q", "mc2_targets": {"a": 2, "b": 1}}, "the label 0 or 1"),
        (mc2_item, {"question": "q", "mc2_targets": {"choices": ["a"], "labels": [1, 0]}}, "the label 0 or 1"),
    ],
)
def test_records_that_are_wrong_are_refused(item_of, values, message):
    with pytest.raises(PicoError, match=message):
        item_of(Record(values, "here"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"query": "q", "choices": ["a", "b"], "gold": 2}, r"right answer \[2\] of 2 choices"),
        ({"query": "q", "choices": ["a"], "gold": 0}, "has 1 choices"),
        ({"query": "q", "choices": ["a", ""], "gold": 0}, "has an empty choice"),
        ({"query": "q", "choices": "ab", "gold": 0}, "`choices` is not a list of texts"),
        ({"query": "q", "choices": ["a", "b" * 30], "gold": 0}, "has 31 tokens; the model accepts 16"),
    ],
)
def test_items_that_cannot_be_scored_are_refused_by_check(values, message, tokenizer, write_jsonl):
    path = write_jsonl("q.jsonl", [values])
    with pytest.raises(PicoError, match=message):
        MultipleChoice(data=str(path)).check(Given(None, tokenizer, 16))


@pytest.mark.data
def test_the_original_hellaswag_becomes_the_preprocessed_one(test_data):
    folder = test_data / "data/hellaswag"
    full = {
        (item.context.lower(), item.choices): item.correct
        for item in map(hellaswag_item, read_records(folder / "val_full_preprocessed.jsonl"))
    }
    originals = [hellaswag_item(record) for record in read_records(folder / "val_sample_1000_original.jsonl")]
    same = [item for item in originals if full.get((item.context.lower(), item.choices)) == item.correct]
    assert len(full) == 10042 and len(originals) == 1000 and len(same) > 900
    assert {item.group for item in originals} == {"activitynet", "wikihow"}


@pytest.mark.data
def test_arc_easy_has_three_to_five_choices_and_digits_for_labels(test_data):
    validation = [arc_item(record) for record in read_records(test_data / "data/arc_easy/validation.jsonl")]
    test = [arc_item(record) for record in read_records(test_data / "data/arc_easy/test.jsonl")]
    raw = [json.loads(line) for line in (test_data / "data/arc_easy/validation.jsonl").open(encoding="utf-8")]
    assert len(validation) == 570 and sum(line["answerKey"].isdigit() for line in raw) == 21
    assert [len(item.choices) for item in test].count(3) == 7 and [len(item.choices) for item in test].count(5) == 4


@pytest.mark.data
def test_the_right_answer_of_truthfulqa_mc1_always_stands_first(test_data):
    records = list(read_records(test_data / "data/truthfulqa/mc_task.json"))
    assert len(records) == 817 and {mc1_item(record).correct for record in records} == {(0,)}
    assert all(mc2_item(record).correct for record in records)


def test_hub_names_that_cannot_be_fetched_say_so(tokenizer):
    with pytest.raises(PicoError, match="Rowan/hellaswag is neither a local path nor to be had from the Hub"):
        HellaSwag().check(Given(None, tokenizer, 16))
