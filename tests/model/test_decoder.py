"""What the decoder promises beside exactness: padding, caches, options, bad shapes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.model.contract import build_model, flops_per_token, parameter_count, parse_model_config
from picolm.model.decoder import DecoderConfig, PicoDecoder
from picolm.model.generation import Sampling, pick_token
from picolm.model.positions import check_tokens

SMALL = {"d_model": 24, "n_layers": 2, "vocab_size": 61, "max_seq_len": 40, "attention_n_heads": 6, "attention_n_kv_heads": 2}


@pytest.fixture
def model() -> PicoDecoder:
    config = DecoderConfig(**SMALL, activation_hidden_dim=40)
    decoder = build_model(config, torch.Generator().manual_seed(7))
    assert isinstance(decoder, PicoDecoder)
    return decoder


def tokens_of(rows: int, length: int) -> Tensor:
    return torch.randint(0, SMALL["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("width", "hidden", "millions"), [(96, 384, 11.28), (384, 1536, 64.6), (768, 3072, 181), (1536, 6144, 570)]
)
def test_the_suite_has_the_papers_sizes(width: int, hidden: int, millions: float) -> None:
    count = parameter_count(DecoderConfig(d_model=width, activation_hidden_dim=hidden)) / 1e6
    decimals = len(str(millions).partition(".")[2])
    assert round(count, decimals) == millions


def test_flops_count_products_and_attention_by_hand() -> None:
    config = DecoderConfig(d_model=96, activation_hidden_dim=384)
    per_block = 96 * 96 * 2 + 2 * 96 * 32 + 3 * 96 * 384 + 2 * 96
    by_hand = 6 * (12 * per_block + 96 + 96 * 50304) + 12 * 12 * 96 * 2048
    assert flops_per_token(config, 2048) == by_hand


def test_left_padding_changes_no_logit_of_a_real_token(model: PicoDecoder) -> None:
    tokens_BT = tokens_of(3, 12)
    mask_BT = torch.ones(3, 17, dtype=torch.long)
    mask_BT[:, :5] = 0
    padded_BT = torch.cat((torch.full((3, 5), 9), tokens_BT), dim=1)
    torch.testing.assert_close(model(padded_BT, mask_BT)[:, 5:], model(tokens_BT), rtol=1e-5, atol=1e-5)


def test_rows_of_different_padding_keep_their_own_positions(model: PicoDecoder) -> None:
    short_T, long_T = tokens_of(1, 6)[0], tokens_of(1, 11)[0]
    padded_BT = torch.stack((torch.cat((torch.zeros(5, dtype=torch.long), short_T)), long_T))
    mask_BT = torch.ones_like(padded_BT)
    mask_BT[0, :5] = 0
    logits_BTV = model(padded_BT, mask_BT)
    torch.testing.assert_close(logits_BTV[0, 5:], model(short_T[None])[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits_BTV[1], model(long_T[None])[0], rtol=1e-5, atol=1e-5)


def test_padding_leaves_gradients_finite_and_equal(model: PicoDecoder) -> None:
    tokens_BT = tokens_of(2, 9)
    model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    padded_BT = torch.cat((torch.full((2, 4), 3), tokens_BT), dim=1)
    mask_BT = torch.ones(2, 12, dtype=torch.bool)
    mask_BT[:, :4] = False
    labels_BT = padded_BT[:, 1:].clone()
    labels_BT[:, :4] = -100
    model(padded_BT[:, :-1], mask_BT, labels_BT=labels_BT).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("padding", [0, 3])
def test_generation_with_cache_equals_generation_without(model: PicoDecoder, padding: int) -> None:
    tokens_BT = tokens_of(2, 8)
    mask_BT = torch.ones_like(tokens_BT)
    mask_BT[0, :padding] = 0
    mask = mask_BT if padding else None
    with_cache, without = (
        model.generate(tokens_BT, max_new_tokens=15, attention_mask_BT=mask, use_cache=use_cache) for use_cache in (True, False)
    )
    assert with_cache.shape == (2, 23)
    assert torch.equal(with_cache, without)


def test_generation_stops_where_every_row_has_ended(model: PicoDecoder) -> None:
    greedy = model.generate(tokens_of(1, 5), max_new_tokens=10)
    stop = int(greedy[0, 7])
    stopped = model.generate(tokens_of(1, 5), max_new_tokens=10, stop_token=stop)
    first_stop = 5 + (greedy[0, 5:] == stop).nonzero()[0].item()
    assert torch.equal(stopped, greedy[:, : int(first_stop) + 1])


def test_top_k_of_one_is_greedy(model: PicoDecoder) -> None:
    tokens_BT = tokens_of(2, 5)
    drawn = model.generate(
        tokens_BT, max_new_tokens=9, sampling=Sampling(temperature=1.3, top_k=1), generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(drawn, model.generate(tokens_BT, max_new_tokens=9))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=0.5), [0.25 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345, 0.01 / 0.345]),
        (Sampling(temperature=1.0, top_k=2), [2 / 3, 1 / 3, 0.0, 0.0]),
        (Sampling(temperature=1.0, top_p=0.7), [2 / 3, 1 / 3, 0.0, 0.0]),
        (Sampling(temperature=1.0, top_p=0.8), [0.5 / 0.9, 0.25 / 0.9, 0.15 / 0.9, 0.0]),
        (Sampling(temperature=1.0, top_p=0.01), [1.0, 0.0, 0.0, 0.0]),
        (Sampling(temperature=1.0, top_k=3, top_p=0.6), [2 / 3, 1 / 3, 0.0, 0.0]),
    ],
    ids=str,
)
def test_tokens_are_drawn_with_the_probabilities_asked_for(sampling: Sampling, expected: list[float]) -> None:
    draws, order = 40_000, torch.tensor([2, 0, 3, 1])
    logits_V = torch.empty(4)
    logits_V[order] = torch.tensor([0.5, 0.25, 0.15, 0.1]).log() + 3.0
    drawn = pick_token(logits_V.expand(draws, 4), sampling, torch.Generator().manual_seed(3))
    share = torch.bincount(drawn, minlength=4)[order] / draws
    for found, wanted in zip(share.tolist(), expected, strict=True):
        assert abs(found - wanted) <= 4 * (wanted * (1 - wanted) / draws) ** 0.5


def test_two_models_of_different_shape_do_not_disturb_each_other(model: PicoDecoder) -> None:
    tokens_BT = tokens_of(2, 10)
    before = model(tokens_BT)
    other = PicoDecoder(DecoderConfig(**{**SMALL, "d_model": 48, "position_emb_theta": 500.0}, activation_hidden_dim=16))
    other(tokens_BT)
    assert torch.equal(model(tokens_BT), before)


def test_the_same_seed_builds_the_same_model_and_leaves_the_global_random_state_alone() -> None:
    config = DecoderConfig(**SMALL, activation_hidden_dim=40)
    state = torch.get_rng_state()
    first, second = (build_model(config, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_torch_default_initialisation_has_the_spread_of_torch_nn() -> None:
    config = DecoderConfig(d_model=256, attention_n_heads=8, n_layers=1, vocab_size=2000, activation_hidden_dim=512)
    model = build_model(config, torch.Generator().manual_seed(0))
    parameters = dict(model.named_parameters())
    assert parameters["embedding_proj.weight"].std().item() == pytest.approx(1.0, rel=0.01)
    for name, fan_in in (("de_embedding_proj", 256), ("layers.0.swiglu.w_2", 512), ("layers.0.attention.k_proj", 256)):
        weight = parameters[f"{name}.weight"]
        assert weight.abs().max().item() == pytest.approx(fan_in**-0.5, rel=0.01)
        assert weight.std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_n_heads": 5}, "attention_n_heads = 5: does not divide d_model = 24"),
        ({"attention_n_heads": 8, "attention_n_kv_heads": 4}, "heads of odd width 3"),
        ({"attention_n_kv_heads": 4}, "attention_n_kv_heads = 4: does not divide attention_n_heads = 6"),
        ({"head_width": 7}, "heads of odd width 7"),
        ({"init": "torch_defualt"}, "did you mean `torch_default`"),
        ({"n_layer": 3}, "n_layer is not a setting"),
        ({"d_model": 0}, "d_model = 0"),
    ],
)
def test_impossible_shapes_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(PicoError, match=message):
        parse_settings(DecoderConfig, {**SMALL, **change}, "x.yaml")


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(PicoError, match="pico_decoder"):
        parse_model_config({"model_type": "pico_decodr"}, "x.yaml")


@pytest.mark.parametrize("wrong", [-1, SMALL["vocab_size"]])
def test_ids_outside_the_vocabulary_are_refused(model: PicoDecoder, wrong: int) -> None:
    with pytest.raises(PicoError, match=f"token id {wrong} is outside the vocabulary of 61"):
        check_tokens(model, torch.tensor([[1, wrong]]))


def test_sequences_longer_than_the_model_are_refused(model: PicoDecoder) -> None:
    with pytest.raises(PicoError, match="41 tokens"):
        model.generate(tokens_of(1, 30), max_new_tokens=11)
    with pytest.raises(PicoError, match="longer than max_seq_len = 40"):
        model(tokens_of(1, 41))


def test_features_are_what_the_output_head_reads(model: PicoDecoder) -> None:
    features_BTD = model(tokens_of(2, 7), features=True)
    assert torch.equal(model.de_embedding_proj(features_BTD), model(tokens_of(2, 7)))
