"""Options of the decoder, and the folders they are saved as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from picolm.model.contract import build_model, load_model, parameter_count, save_model
from picolm.model.decoder import DecoderConfig, PicoDecoder
from picolm.model.initialize import SCHEMES
from picolm.records.snapshot import open_snapshot

SHAPE: dict[str, Any] = {
    "d_model": 24,
    "n_layers": 3,
    "vocab_size": 61,
    "max_seq_len": 40,
    "attention_n_heads": 6,
    "attention_n_kv_heads": 2,
    "activation_hidden_dim": 40,
}
TOKENS_BT = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(1))
OPTIONS = [
    {},
    {"tied_embeddings": True},
    {"qk_norm": True},
    {"head_width": 10},
    {"attention_n_kv_heads": None},
    {"tied_embeddings": True, "qk_norm": True, "head_width": 6, "position_emb_theta": 321.0},
]


def built(options: dict[str, Any]) -> PicoDecoder:
    config = DecoderConfig(**{**SHAPE, **options})
    model = build_model(config, torch.Generator().manual_seed(7))
    assert isinstance(model, PicoDecoder)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):  # ones would hide a wrong order of rows
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_opens_in_transformers_with_equal_logits_and_comes_back(options: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = built(options)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if options.get("qk_norm") else "LlamaForCausalLM")
    torch.testing.assert_close(theirs(TOKENS_BT).logits, model(TOKENS_BT), rtol=1e-4, atol=1e-5)
    again = load_model(tmp_path)
    assert torch.equal(again(TOKENS_BT), model(TOKENS_BT))
    ignored = {"attention_n_kv_heads"} if options.get("attention_n_kv_heads", 0) is None else set()
    assert again.config.model_dump(exclude=ignored) == model.config.model_dump(exclude=ignored)


def test_tied_embeddings_are_one_parameter_stored_once_and_known_by_both_names(tmp_path: Path) -> None:
    model = built({"tied_embeddings": True})
    untied = parameter_count(DecoderConfig(**SHAPE))
    assert parameter_count(model.config) == untied - 61 * 24
    save_model(model, tmp_path)
    weights = open_snapshot(tmp_path, 0, "train").weights
    assert torch.equal(weights["embedding_proj"], weights["de_embedding_proj"])


def test_tied_gradients_are_the_sum_of_both_uses() -> None:
    tied = built({"tied_embeddings": True})
    untied = built({})
    untied.load_state_dict(tied.state_dict())
    for model in (tied, untied):
        model.loss_sum(TOKENS_BT[:, :-1], TOKENS_BT[:, 1:]).backward()
    both = untied.embedding_proj.weight.grad + untied.de_embedding_proj.weight.grad
    torch.testing.assert_close(tied.embedding_proj.weight.grad, both, rtol=1e-4, atol=1e-5)


def test_normalised_queries_and_keys_ignore_the_scale_of_their_projections() -> None:
    model = built({"qk_norm": True, "norm_eps": 1e-12})
    before = model(TOKENS_BT)
    with torch.no_grad():
        for block in model.layers:
            block.attention.q_proj.weight.mul_(17.0)
            block.attention.k_proj.weight.mul_(0.3)
    torch.testing.assert_close(model(TOKENS_BT), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_gives_a_finite_model(scheme: str) -> None:
    model = built({"init": scheme})
    assert model(TOKENS_BT).isfinite().all()


def test_depth_scaled_schemes_shrink_only_what_ends_a_block() -> None:
    shape = {**SHAPE, "d_model": 240, "activation_hidden_dim": 400}
    models = {
        init: build_model(DecoderConfig(**shape, init=init), torch.Generator().manual_seed(0))
        for init in ("normal", "normal_depth_scaled", "small_wang")
    }
    spread = {init: {name: p.std().item() for name, p in model.named_parameters()} for init, model in models.items()}
    for part, scaled in (("attention.o_proj", True), ("swiglu.w_2", True), ("swiglu.w_0", False), ("attention.q_proj", False)):
        name = f"layers.1.{part}.weight"
        assert spread["normal"][name] == pytest.approx(0.02, rel=0.02)
        assert spread["normal_depth_scaled"][name] == pytest.approx(0.02 / 6**0.5 if scaled else 0.02, rel=0.02)
        wang, small = 2 / (3 * 240**0.5), (2 / (5 * 240)) ** 0.5
        assert spread["small_wang"][name] == pytest.approx(wang if scaled else small, rel=0.02)


def test_a_saved_folder_states_the_rotary_base_for_both_generations_of_transformers(tmp_path: Path) -> None:
    save_model(built({"position_emb_theta": 321.0}), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 321.0
