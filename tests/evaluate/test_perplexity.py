from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from picolm.base.errors import PicoError
from picolm.evaluate.contract import Given
from picolm.evaluate.perplexity import Perplexity, windows_of
from picolm.evaluate.scorer import Scorer


class Rows:
    """A few rows of tokens in memory."""

    fingerprint = "f" * 64

    def __init__(self, tokens_BT: np.ndarray) -> None:
        self.rows, self.row_length = tokens_BT.shape
        self._tokens_BT = tokens_BT

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self._tokens_BT[rows]


class Data:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def split(self, name: str) -> Rows:
        assert name == "val"
        return self._rows


def scores(evaluation: Perplexity, model: Any, tokenizer: Any, data: Any = None) -> dict[tuple[str, str], Any]:
    evaluation.check(Given(data, tokenizer, model.max_seq_len))
    with Scorer(model, tokenizer) as scorer:
        return {(score.group, score.measure): score for score in evaluation.run(scorer)}


@pytest.mark.parametrize("length", [1, 2, 5, 16, 17, 33, 100])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 4), (16, 15), (5, 1), (1, 1)])
def test_windows_score_every_token_but_the_first_exactly_once(length, window, stride):
    tokens = np.arange(length)
    scored = [token for sequence in windows_of(tokens, window, stride) for token in sequence.tokens[sequence.start :]]
    assert scored == list(range(1, length))
    for sequence in windows_of(tokens, window, stride):
        assert len(sequence.tokens) - 1 <= window
        if stride < window and sequence.tokens[0] > 0:
            assert sequence.start >= window - stride + 1, "later windows have at least window - stride tokens of context"


def test_windows_are_those_of_lm_eval():
    lm_eval = pytest.importorskip("lm_eval.utils")
    for length in (1, 5, 16, 17, 32, 33, 61):
        tokens = list(range(1, length + 1))
        theirs = [
            lm_eval.make_disjoint_window(pair)
            for pair in lm_eval.get_rolling_token_windows(tokens, prefix_token=0, max_seq_len=16, context_len=1)
        ]
        ours = windows_of(np.asarray([0, *tokens]), 16, 16)
        assert [(list(s.tokens[: s.start]), list(s.tokens[s.start :])) for s in ours] == [(a, b) for a, b in theirs]


def test_loss_of_prepared_rows_is_the_mean_over_predicted_tokens(bigram, tokenizer):
    tokens_BT = np.random.default_rng(0).integers(0, 257, (300, 17))
    found = scores(Perplexity(), bigram, tokenizer, Data(Rows(tokens_BT)))
    by_row = np.array([bigram.log_prob(row.tolist()) for row in tokens_BT]) / 16
    assert found["all", "loss_per_token"].value == pytest.approx(-by_row.mean(), rel=1e-6)
    assert found["all", "loss_per_token"].n == 300 * 16
    assert found["all", "loss_per_token"].standard_error == pytest.approx(by_row.std(ddof=1) / math.sqrt(300), rel=1e-5)
    assert found["all", "perplexity"].value == pytest.approx(math.exp(-by_row.mean()), rel=1e-6)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(bigram, tokenizer, write_jsonl):
    with torch.no_grad():
        bigram.table_VV.zero_()
    path = write_jsonl("text.jsonl", [{"text": "some text, longer than the window"}, {"text": "ü"}])
    found = scores(Perplexity(data=str(path)), bigram, tokenizer)
    assert found["all", "perplexity"].value == pytest.approx(257)
    assert found["all", "bits_per_byte"].value == pytest.approx(math.log2(257))
    assert found["all", "bits_per_byte"].n == 33 + 2


def test_domains_are_weighted_by_tokens_inside_and_equally_in_the_macro_average(bigram, tokenizer, write_jsonl):
    write_jsonl("texts/long.jsonl", [{"text": "abcdefgh" * 40}, {"text": "zz"}])
    path = write_jsonl("texts/short.jsonl", [{"text": "q!"}])
    found = scores(Perplexity(data=str(path.parent)), bigram, tokenizer)
    long = [bigram.log_prob([256, *b"abcdefgh" * 40]), bigram.log_prob([256, *b"zz"])]
    short = bigram.log_prob([256, *b"q!"])
    loss = {"long": -sum(long) / 322, "short": -short / 2}
    assert found["domain/long", "loss_per_token"].value == pytest.approx(loss["long"], rel=1e-6)
    assert found["domain/short", "loss_per_token"].value == pytest.approx(loss["short"], rel=1e-6)
    assert found["all", "loss_per_token"].value == pytest.approx(-(sum(long) + short) / 324, rel=1e-6)
    macro = (math.exp(loss["long"]) + math.exp(loss["short"])) / 2
    assert found["macro_average", "perplexity"].value == pytest.approx(macro, rel=1e-6)


def test_sliding_windows_give_a_model_with_memory_more_context(decoder, tokenizer, write_jsonl):
    path = write_jsonl("text.jsonl", [{"text": "abcdefgh" * 20}])
    disjoint = scores(Perplexity(data=str(path)), decoder, tokenizer)["all", "loss_per_token"]
    sliding = scores(Perplexity(data=str(path), stride=1), decoder, tokenizer)["all", "loss_per_token"]
    with torch.no_grad():
        tokens = [256, *b"abcdefgh" * 20]
        total = 0.0
        for i in range(1, len(tokens)):
            table = torch.log_softmax(decoder(torch.tensor([tokens[max(0, i - 32) : i]]))[0, -1].double(), -1)
            total -= float(table[tokens[i]])
    assert sliding.n == disjoint.n == 160
    assert sliding.value == pytest.approx(total / 160, rel=1e-5) and sliding.value != disjoint.value


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "is empty"),
        ([{"txt": "a"}], "text.jsonl:1 has no column `text`"),
        ([{"text": 3}], "`text` is a int, not text"),
        ([{"text": ""}], "only empty texts"),
        ([["text"]], "holds a list, not an object"),
    ],
)
def test_bad_texts_are_refused_by_check(records, message, tokenizer, write_jsonl):
    path = write_jsonl("text.jsonl", records)
    with pytest.raises(PicoError, match=message):
        Perplexity(data=str(path)).check(Given(None, tokenizer, 16))


def test_bad_settings_are_refused_by_check(tokenizer, write_jsonl, tmp_path):
    path = str(write_jsonl("text.jsonl", [{"text": "a"}]))
    with pytest.raises(PicoError, match="window = 32 is more than the 16 tokens"):
        Perplexity(data=path, window=32).check(Given(None, tokenizer, 16))
    with pytest.raises(PicoError, match="stride = 9 is more than window = 8"):
        Perplexity(data=path, window=8, stride=9).check(Given(None, tokenizer, 16))
    with pytest.raises(PicoError, match=r"did you mean `text\.jsonl`"):
        Perplexity(data=str(tmp_path / "test.jsonl")).check(Given(None, tokenizer, 16))
    with pytest.raises(PicoError, match="no prepared data of a run"):
        Perplexity().check(Given(None, tokenizer, 16))
    with pytest.raises(PicoError, match="only be scored with the model's tokenizer"):
        Perplexity(data=path).check(Given(None, None, 16))


def test_settings_say_what_the_scores_depend_on(bigram, tokenizer, write_jsonl):
    path = write_jsonl("text.jsonl", [{"text": "a"}])
    evaluation = Perplexity(data=str(path))
    evaluation.check(Given(None, tokenizer, 16))
    with Scorer(bigram, tokenizer) as scorer:
        before = evaluation.settings(scorer)
        assert before["window"] == before["stride"] == 16
    path.write_text('{"text": "b"}\n')
    evaluation.check(Given(None, tokenizer, 16))
    with Scorer(bigram, tokenizer) as scorer:
        assert evaluation.settings(scorer)["data_hash"] != before["data_hash"]
