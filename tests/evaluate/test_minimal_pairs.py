from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from picolm.base.errors import PicoError
from picolm.evaluate.contract import Given
from picolm.evaluate.minimal_pairs import MinimalPairs, Pair, read_pairs, scores_of_pairs
from picolm.evaluate.scorer import Scorer


def record(good: str, bad: str, paradigm: str = "p", field: str = "syntax") -> dict[str, Any]:
    return {"sentence_good": good, "sentence_bad": bad, "UID": paradigm, "field": field, "linguistics_term": "t"}


def scores(evaluation: MinimalPairs, model: Any, tokenizer: Any) -> dict[tuple[str, str], Any]:
    evaluation.check(Given(None, tokenizer, model.max_seq_len))
    with Scorer(model, tokenizer) as scorer:
        return {(score.group, score.measure): score for score in evaluation.run(scorer)}


@pytest.mark.parametrize("delimiter", ["", " "])
def test_the_more_probable_sentence_wins_by_the_difference_of_log_probabilities(bigram, tokenizer, write_jsonl, delimiter):
    texts = [("abc", "abd"), ("xyz", "xy"), ("q", "r"), ("hello", "olleh")]
    path = write_jsonl("pairs.jsonl", [record(*pair) for pair in texts])
    found = scores(MinimalPairs(data=str(path), delimiter=delimiter), bigram, tokenizer)
    start = [256, *delimiter.encode()]
    margins = [bigram.log_prob([*start, *good.encode()]) - bigram.log_prob([*start, *bad.encode()]) for good, bad in texts]
    assert found["all", "mean_margin"].value == pytest.approx(np.mean(margins), rel=1e-5)
    assert found["all", "accuracy"].value == np.mean([margin > 0 for margin in margins])
    assert found["all", "accuracy"].baseline == 0.5


def test_identical_sentences_are_ties_count_as_wrong_and_are_stated(decoder, tokenizer, write_jsonl):
    records = [record("same one", "same one"), *(record(f"good {i}", f"bad {i}{i}") for i in range(9))]
    path = write_jsonl("pairs.jsonl", records)
    found = scores(MinimalPairs(data=str(path)), decoder, tokenizer)
    assert found["all", "accuracy"].note == "1 tied pair, counted as wrong"
    assert found["all", "accuracy"].value <= 0.9


def test_groups_are_paradigms_fields_terms_and_all():
    pairs = [
        Pair("", "", uid, field, "t") for uid, field in (("a", "f"), ("a", "f"), ("b", "f"), ("b", "f"), ("c", "g"), ("c", "g"))
    ]
    found = {(s.group, s.measure): s for s in scores_of_pairs(pairs, np.array([1.0, -1, 2, 3, -4, 5]))}
    assert found["paradigm/b", "accuracy"].value == 1.0 and found["paradigm/b", "mean_margin"].value == 2.5
    assert found["field/f", "accuracy"].value == 0.75 and found["field/g", "accuracy"].value == 0.5
    assert found["term/t", "accuracy"].value == found["all", "accuracy"].value == pytest.approx(4 / 6)
    assert found["paradigm/a", "accuracy"].standard_error == pytest.approx(0.5)
    residual = np.array([1 - 4 / 6 * 2, 2 - 4 / 6 * 2, 1 - 4 / 6 * 2])
    assert found["all", "accuracy"].standard_error == pytest.approx(math.sqrt(3 / 2 * (residual**2).sum()) / 6)


def test_the_limit_holds_per_paradigm(bigram, tokenizer, write_jsonl):
    path = write_jsonl("pairs.jsonl", [record(f"a{i}", f"b{i}", paradigm) for i in range(5) for paradigm in ("p", "q")])
    found = scores(MinimalPairs(data=str(path), limit=3), bigram, tokenizer)
    assert found["all", "accuracy"].n == 6 and found["paradigm/q", "accuracy"].n == 3


def test_a_missing_column_or_a_sentence_too_long_is_refused_by_check(tokenizer, write_jsonl):
    path = write_jsonl("pairs.jsonl", [{"sentence_good": "a", "sentence_bat": "b"}])
    with pytest.raises(PicoError, match=r"pairs.jsonl:1 has no column `sentence_bad`\nhint: did you mean `sentence_bat`"):
        MinimalPairs(data=str(path)).check(Given(None, tokenizer, 16))
    path = write_jsonl("long.jsonl", [record("a" * 20, "b")])
    with pytest.raises(PicoError, match="has 20 tokens; the model accepts 16"):
        MinimalPairs(data=str(path)).check(Given(None, tokenizer, 16))


@pytest.mark.data
def test_blimp_has_67000_pairs_in_12_terms_spelt_13_ways_and_one_field_spelt_one_way(test_data):
    pairs = [pair for path in sorted((test_data / "data/blimp").glob("*.jsonl")) for pair in read_pairs(path)]
    assert len(pairs) == 67000 and len({pair.paradigm for pair in pairs}) == 67
    assert {pair.field for pair in pairs} == {"syntax", "semantics", "morphology", "syntax_semantics"}
    assert len({pair.term for pair in pairs}) == 13
    assert sum(pair.good == pair.bad for pair in pairs) == 7
