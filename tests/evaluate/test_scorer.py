from __future__ import annotations

import copy
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from picolm.base.errors import PicoError
from picolm.evaluate import sharing
from picolm.evaluate.scorer import Scorer, encode_continuations
from picolm.evaluate.sharing import TokenSequence
from picolm.model.contract import build_model


def random_sequences(count: int, longest: int, seed: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(count):
        tokens = rng.integers(0, 257, rng.integers(2, longest + 2))
        sequences.append(TokenSequence(tokens, int(rng.integers(1, len(tokens)))))
    return sequences


def independent_log_prob(model: nn.Module, sequence: TokenSequence) -> float:
    """One sequence at a time, full logits, double precision."""
    with torch.no_grad():
        output = model.eval().double()(torch.as_tensor(sequence.tokens)[None])
    table = torch.log_softmax(getattr(output, "logits", output)[0], dim=-1)
    return float(sum(table[i - 1, sequence.tokens[i]] for i in range(sequence.start, len(sequence.tokens))))


def test_sums_equal_those_done_by_hand(bigram, tokenizer):
    sequences = random_sequences(50, 16)
    with Scorer(bigram, tokenizer) as scorer:
        found = scorer.log_probs(sequences)
    assert found == pytest.approx([bigram.log_prob(tokens.tolist(), start) for tokens, start in sequences], rel=1e-6)


@pytest.mark.parametrize("longest_shared", [0, 256])
def test_the_decoder_scores_the_same_in_batches_as_one_by_one_in_double_precision(
    decoder, tokenizer, longest_shared, monkeypatch
):
    monkeypatch.setattr(sharing, "LONGEST_SHARED", longest_shared)
    sequences = random_sequences(40, 32)
    sequences += [TokenSequence(np.concatenate([tokens[:2], tokens[::-1][:9]]), 1) for tokens, _ in sequences]
    with Scorer(decoder, tokenizer, batch_tokens=200) as scorer:
        found = scorer.log_probs(sequences)
    double = copy.deepcopy(decoder)
    assert found == pytest.approx([independent_log_prob(double, sequence) for sequence in sequences], rel=1e-5)


def test_batch_size_does_not_change_a_sum(decoder, tokenizer):
    sequences = random_sequences(30, 32)
    with Scorer(decoder, tokenizer, batch_tokens=1, logit_bytes=1) as one, Scorer(decoder, tokenizer) as many:
        assert one.log_probs(sequences) == pytest.approx(many.log_probs(sequences), rel=1e-6)


def test_identical_sequences_get_identical_sums_wherever_they_stand(decoder, tokenizer):
    sequences = random_sequences(30, 32)
    with Scorer(decoder, tokenizer, batch_tokens=64) as scorer:
        found = scorer.log_probs([*sequences, *reversed(sequences)])
    assert (found[:30] == found[:29:-1]).all()


def test_a_model_that_returns_an_object_with_logits_scores_like_one_that_returns_logits(bigram, tokenizer):
    class Wrapped(nn.Module):
        vocab_size, max_seq_len = 257, 16

        def __init__(self) -> None:
            super().__init__()
            self.inner = bigram

        def forward(self, tokens_BT: Any) -> Any:
            return types.SimpleNamespace(logits=self.inner(tokens_BT))

    sequences = random_sequences(10, 16)
    with Scorer(bigram, tokenizer) as plain, Scorer(Wrapped(), tokenizer) as wrapped:
        assert (plain.log_probs(sequences) == wrapped.log_probs(sequences)).all()


def test_the_output_head_sees_only_positions_that_are_read_and_shared_ones_once(decoder, tokenizer):
    rows = []
    decoder.de_embedding_proj.register_forward_hook(lambda module, inputs, output: rows.append(output.shape))
    shared = [TokenSequence(np.array([256, 5, 6, last])) for last in range(8)]
    with Scorer(decoder, tokenizer) as scorer:
        scorer.log_probs(shared)
        scorer.log_probs([TokenSequence(np.arange(20), 18)])
    assert rows == [(1, 257), (1, 257), (3, 257), (1, 257), (1, 257), (2, 257)], "one row passes, one is compared, the read ones"


def test_scoring_leaves_modes_gradients_hooks_and_random_streams_alone(bigram, tokenizer):
    bigram.train()
    bigram.dropout.eval()
    bigram.table_VV.grad = torch.ones_like(bigram.table_VV)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), bigram.table_VV.detach().clone()
    with Scorer(bigram, tokenizer) as scorer:
        assert not bigram.training
        scorer.log_probs(random_sequences(5, 16))
    assert bigram.training and not bigram.dropout.training
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    assert torch.equal(bigram.table_VV, before[2]) and bool((bigram.table_VV.grad == 1).all())


def test_the_mode_is_restored_after_an_error(bigram, tokenizer):
    bigram.train()
    with pytest.raises(PicoError, match="does not fit the model"), Scorer(bigram, tokenizer) as scorer:
        scorer.log_probs([TokenSequence(np.arange(30))])
    assert bigram.training


def test_a_training_step_after_scoring_equals_one_without(decoder, tokenizer):
    twin = copy.deepcopy(decoder)
    tokens_BT = torch.arange(24).reshape(2, 12)
    with Scorer(decoder, tokenizer, precision="bf16-mixed") as scorer:
        scorer.log_probs(random_sequences(9, 32))
    for model in (decoder, twin):
        model(tokens_BT).logsumexp(-1).sum().backward()
    for ours, theirs in zip(decoder.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_token_outside_the_vocabulary_is_refused(bigram, tokenizer):
    with (
        pytest.raises(PicoError, match="token id 300 is outside the model's vocabulary of 257"),
        Scorer(bigram, tokenizer) as scorer,
    ):
        scorer.log_probs([TokenSequence(np.array([1, 300]))])


def test_a_sequence_with_nothing_to_score_sums_to_zero(bigram, tokenizer):
    with Scorer(bigram, tokenizer) as scorer:
        assert scorer.log_probs([TokenSequence(np.array([7])), TokenSequence(np.array([7, 8]))])[0] == 0.0
        assert len(scorer.log_probs([])) == 0


def test_continuations_are_scored_given_their_context_and_spaces_belong_to_them(bigram, tokenizer):
    with Scorer(bigram, tokenizer) as scorer:
        moved, plain = scorer.continuation_log_probs([("ab ", "cd"), ("ab", " cd")])
    assert moved == plain == pytest.approx(bigram.log_prob(list(b"ab cd"), start=2), rel=1e-6)


def test_without_a_context_the_prefix_token_stands_before_the_text(bigram, tokenizer):
    with Scorer(bigram, tokenizer) as scorer:
        assert scorer.continuation_log_probs([("", "abc")])[0] == pytest.approx(bigram.log_prob([256, *b"abc"]), rel=1e-6)
        assert scorer.text_log_probs(["abc"])[0] == pytest.approx(bigram.log_prob([256, *b"abc"]), rel=1e-6)


def test_a_long_context_loses_its_beginning_and_a_long_continuation_is_refused(bigram, tokenizer):
    with Scorer(bigram, tokenizer) as scorer:
        (encoded,) = encode_continuations(scorer, [("x" * 30, "ab")])
        assert encoded.cut_tokens == 15 and len(encoded.sequence.tokens) == 17 and encoded.sequence.start == 15
        with pytest.raises(PicoError, match="has 17 tokens; the model accepts 16"):
            encode_continuations(scorer, [("x", "a" * 17)])


def test_a_long_start_that_many_share_is_computed_once_and_changes_nothing(decoder, tokenizer):
    rng = np.random.default_rng(1)
    config = decoder.config.model_copy(update={"max_seq_len": 128})
    model = build_model(config, torch.Generator().manual_seed(0))
    start = rng.integers(0, 257, 60)
    sequences = [TokenSequence(np.concatenate([start, rng.integers(0, 257, rng.integers(2, 30))]), 61) for _ in range(40)]
    sequences += [TokenSequence(rng.integers(0, 257, 90), 50) for _ in range(3)]
    widths = []
    model.layers[0].register_forward_hook(lambda module, inputs, output: widths.append(output.shape[:2]))
    with Scorer(model, tokenizer) as scorer:
        found = scorer.log_probs(sequences)
    assert (1, 60) in widths and max(width for rows, width in widths if rows > 3) < 30
    double = copy.deepcopy(model)
    assert found == pytest.approx([independent_log_prob(double, sequence) for sequence in sequences], rel=1e-5)


def test_a_model_that_changes_its_logits_after_the_head_is_scored_by_its_own_forward(decoder, tokenizer):
    class Capped(nn.Module):
        vocab_size, max_seq_len = 257, 32

        def __init__(self) -> None:
            super().__init__()
            self.inner = decoder

        def get_output_embeddings(self) -> nn.Module:
            return self.inner.de_embedding_proj

        def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
            return 0.1 * torch.tanh(self.inner(tokens_BT) / 0.1)

    sequences = random_sequences(20, 32)
    model = Capped()
    with Scorer(model, tokenizer) as scorer:
        found = scorer.log_probs(sequences)
    double = copy.deepcopy(model)
    assert found == pytest.approx([independent_log_prob(double, sequence) for sequence in sequences], rel=1e-5)
