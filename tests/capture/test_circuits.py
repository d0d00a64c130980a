"""Exact gradients of OV circuits against autograd on attention that is written with the circuits as parameters."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.capture.circuits import circuit_gradients, circuits_of
from picolm.model.decoder import Attention, DecoderConfig, PicoDecoder, rotate_pairs
from picolm.model.neox import NeoX, NeoXConfig
from picolm.records.snapshot import Layout

HEADS, WIDTH, VOCABULARY = 4, 24, 40


def decoder(key_value_heads: int, *, qk_norm: bool = False) -> PicoDecoder:
    config = DecoderConfig(
        d_model=WIDTH,
        n_layers=2,
        vocab_size=VOCABULARY,
        max_seq_len=16,
        attention_n_heads=HEADS,
        attention_n_kv_heads=key_value_heads,
        activation_hidden_dim=32,
        qk_norm=qk_norm,
    )
    torch.manual_seed(0)
    return PicoDecoder(config).double()


def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(1))


def modules_of(model: torch.nn.Module, layout: Layout) -> dict[str, tuple[torch.nn.Module, torch.nn.Module]]:
    return {
        circuit.name: (model.get_submodule(circuit.value), model.get_submodule(circuit.output)) for circuit in circuits_of(layout)
    }


def captured(model: PicoDecoder | NeoX, tokens_BT: Tensor, *, passes: int = 1) -> dict[str, Tensor]:
    with circuit_gradients(modules_of(model, model.layout())) as gradients:
        for part_BT in tokens_BT.chunk(passes):
            (model.loss_sum(part_BT[:, :-1], part_BT[:, 1:]) / tokens_BT[:, 1:].numel()).backward()
    return gradients.totals


def head_blocks(attention: Attention, head: int, key_value_heads: int) -> tuple[Tensor, Tensor]:
    """(D, K) output and (K, D) value block of a query head."""
    width = attention.head_width
    group = head // (HEADS // key_value_heads)
    return (
        attention.o_proj.weight[:, head * width : (head + 1) * width],
        attention.v_proj.weight[group * width : (group + 1) * width],
    )


def attention_with_circuits(attention: Attention, circuits_HDD: Tensor) -> object:
    """A forward in which head h adds M_h Σ_s A_ts x_s, with its pattern written out."""

    def forward(x_BTD: Tensor, rotation: tuple[Tensor, Tensor], mask: object, cache: object) -> Tensor:
        query_BTHK = attention.q_norm(attention.q_proj(x_BTD).unflatten(-1, (-1, attention.head_width)))
        key_BTGK = attention.k_norm(attention.k_proj(x_BTD).unflatten(-1, (-1, attention.head_width)))
        query_BTHK, key_BTGK = rotate_pairs(query_BTHK, *rotation), rotate_pairs(key_BTGK, *rotation)
        key_BTHK = key_BTGK.repeat_interleave(HEADS // key_BTGK.shape[2], dim=2)
        scores_BHTS = torch.einsum("bthk,bshk->bhts", query_BTHK, key_BTHK) / math.sqrt(attention.head_width)
        future_TS = torch.ones(scores_BHTS.shape[-2:], dtype=torch.bool).triu(1)
        pattern_BHTS = scores_BHTS.masked_fill(future_TS, -torch.inf).softmax(-1)
        return torch.einsum("hde,bhts,bse->btd", circuits_HDD, pattern_BHTS, x_BTD)

    return forward


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_they_are_the_gradients_of_a_model_whose_parameters_are_the_circuits(key_value_heads: int, qk_norm: bool):
    model, tokens_BT = decoder(key_value_heads, qk_norm=qk_norm), tokens()
    ours = captured(model, tokens_BT)
    explicit: dict[str, Tensor] = {}
    for layer, block in enumerate(model.layers):
        products = [
            left @ right for left, right in (head_blocks(block.attention, head, key_value_heads) for head in range(HEADS))
        ]
        explicit[f"layers.{layer}.ov_gradient"] = circuits_HDD = torch.stack(products).detach().requires_grad_()
        block.attention.forward = attention_with_circuits(block.attention, circuits_HDD)
    (model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()).backward()
    assert ours.keys() == explicit.keys()
    for name, circuits_HDD in explicit.items():
        assert ours[name].shape == (HEADS, WIDTH, WIDTH)
        assert (ours[name] - circuits_HDD.grad).norm() <= 1e-12 * circuits_HDD.grad.norm()


@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("passes", [1, 3])
def test_gradients_of_the_weights_follow_from_them(key_value_heads: int, passes: int):
    """G_O = dL/dM W_Vᵀ for every head, G_V = Σ W_Oᵀ dL/dM over the heads that share it."""
    model, tokens_BT = decoder(key_value_heads), tokens()
    ours = captured(model, tokens_BT, passes=passes)
    for layer, block in enumerate(model.layers):
        attention, gradient_HDD = block.attention, ours[f"layers.{layer}.ov_gradient"]
        width, shared = attention.head_width, HEADS // key_value_heads
        blocks = [head_blocks(attention, head, key_value_heads) for head in range(HEADS)]
        output_gradient = torch.cat([gradient_HDD[head] @ blocks[head][1].T for head in range(HEADS)], dim=1)
        per_head_HKD = torch.stack([blocks[head][0].T @ gradient_HDD[head] for head in range(HEADS)])
        value_gradient = per_head_HKD.view(key_value_heads, shared, width, WIDTH).sum(1).flatten(0, 1)
        for found, parameter in ((output_gradient, attention.o_proj.weight), (value_gradient, attention.v_proj.weight)):
            assert (found - parameter.grad).norm() <= 1e-12 * parameter.grad.norm()


def test_partly_rotary_attention_with_biases_is_seen_too():
    torch.manual_seed(0)
    model = NeoX(
        NeoXConfig(d_model=32, n_layers=2, vocab_size=VOCABULARY, attention_n_heads=4, activation_hidden_dim=48)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = captured(model, tokens())
    for layer, block in enumerate(model.layers):
        for head in range(4):
            rows = slice(head * 8, head * 8 + 8)
            found = block.attention.o_proj.weight[:, rows].T @ ours[f"layers.{layer}.ov_gradient"][head]
            expected = block.attention.v_proj.weight.grad[rows]
            assert (found - expected).norm() <= 1e-12 * expected.norm()


def test_nothing_that_training_computes_is_changed():
    model, tokens_BT = decoder(2).float(), tokens()
    model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    alone = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    with circuit_gradients(modules_of(model, model.layout())):
        model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]).backward()
    assert all(torch.equal(parameter.grad, alone[name]) for name, parameter in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_they_can_be_had_without_touching_the_gradients_of_parameters():
    model, tokens_BT = decoder(2), tokens()
    expected = captured(model, tokens_BT)
    model.zero_grad()
    with circuit_gradients(modules_of(model, model.layout())) as gradients:
        loss = model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()
        torch.autograd.grad(loss, gradients.outputs)
    assert all(torch.equal(gradients.totals[name], total) for name, total in expected.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_that_cannot_be_overheard_is_an_error():
    class Plain(torch.nn.Module):
        def forward(self, x_BTD: Tensor) -> Tensor:
            return x_BTD

    value, output = Plain(), Plain()
    with (
        pytest.raises(PicoError, match="not computed by scaled_dot_product_attention"),
        circuit_gradients({"a": (value, output)}),
    ):
        output(value(torch.ones(1, 2, 3)))


def test_a_hugging_face_model_gives_the_same_as_ours(tmp_path: Path, all_series: dict[str, Path]):
    from transformers import AutoModelForCausalLM

    from picolm.model.contract import load_model

    folder, tokens_BT = all_series["llama"] / "step4", tokens()
    ours = captured(load_model(folder).double().train(), tokens_BT)
    theirs = AutoModelForCausalLM.from_pretrained(folder).double()
    layers = theirs.model.layers
    modules = {f"layers.{i}.ov_gradient": (layers[i].self_attn.v_proj, layers[i].self_attn.o_proj) for i in range(2)}
    with circuit_gradients(modules) as gradients:
        theirs(tokens_BT, labels=tokens_BT).loss.backward()
    for name, total in ours.items():
        assert (gradients.totals[name] - total).norm() <= 1e-6 * total.norm()  # transformers norms in float32
