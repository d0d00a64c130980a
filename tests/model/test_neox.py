"""The second architecture: equal to transformers' GPT-NeoX, and nobody but its own file knows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import picolm
from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.model.contract import build_model, load_model, parameter_count, save_model
from picolm.model.neox import NeoX, NeoXConfig
from picolm.records.snapshot import open_snapshot

SHAPE: dict[str, Any] = {
    "d_model": 48,
    "n_layers": 2,
    "vocab_size": 61,
    "max_seq_len": 40,
    "attention_n_heads": 3,
    "activation_hidden_dim": 80,
}
TOKENS_BT = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(1))


def built(options: dict[str, Any]) -> NeoX:
    model = build_model(NeoXConfig(**{**SHAPE, **options}), torch.Generator().manual_seed(7))
    assert isinstance(model, NeoX)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.mark.parametrize(
    "options",
    [{}, {"parallel_residual": False}, {"rotary_share": 1.0}, {"rotary_share": 0.5, "position_emb_theta": 99.0}],
    ids=str,
)
def test_saved_folders_open_in_transformers_with_equal_logits_and_come_back(options: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = built(options)
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "GPTNeoXForCausalLM"
    torch.testing.assert_close(theirs(TOKENS_BT).logits, model(TOKENS_BT), rtol=1e-4, atol=1e-5)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(TOKENS_BT), model(TOKENS_BT))


def test_gradients_equal_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = built({})
    save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    model.loss_sum(TOKENS_BT[:, :-1], TOKENS_BT[:, 1:]).backward()
    torch.nn.functional.cross_entropy(
        theirs(TOKENS_BT[:, :-1]).logits.flatten(0, 1), TOKENS_BT[:, 1:].flatten(), reduction="sum"
    ).backward()
    fused = theirs.gpt_neox.layers[1].attention.query_key_value.weight.grad.view(3, 3, 16, 48)
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        ours = model.get_submodule(f"layers.1.attention.{part}").weight.grad
        torch.testing.assert_close(ours, fused[:, index].reshape(48, 48), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        ({}, 14_067_712),
        ({"d_model": 512, "attention_n_heads": 8, "activation_hidden_dim": 2048}, 70_426_624),
        ({"d_model": 768, "n_layers": 12, "attention_n_heads": 12, "activation_hidden_dim": 3072}, 162_322_944),
    ],
)
def test_the_shapes_of_pythia_have_pythias_parameter_counts(settings: dict[str, Any], parameters: int) -> None:
    assert parameter_count(NeoXConfig(vocab_size=50304, **settings)) == parameters


def test_buffers_that_published_pythia_folders_carry_are_passed_over(tmp_path: Path) -> None:
    model = built({})
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    tensors["gpt_neox.layers.1.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(load_model(tmp_path)(TOKENS_BT), model(TOKENS_BT))


def test_the_layout_gives_back_every_parameter_under_its_plain_name(tmp_path: Path) -> None:
    model = built({})
    save_model(model, tmp_path)
    weights = open_snapshot(tmp_path, 0, "train").weights
    parameters = dict(model.named_parameters())
    assert {name if name.endswith(".bias") else f"{name}.weight" for name in weights} == parameters.keys()
    for name in weights:
        stored = weights[name]
        assert torch.equal(stored, parameters[name if name.endswith(".bias") else f"{name}.weight"]), name


@pytest.mark.parametrize("padding", [0, 4])
def test_generation_with_cache_equals_generation_without(padding: int) -> None:
    model = built({})
    mask_BT = torch.ones(2, 8, dtype=torch.long)
    mask_BT[1, :padding] = 0
    with_cache, without = (
        model.generate(TOKENS_BT[:, :8], max_new_tokens=12, attention_mask_BT=mask_BT, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"attention_n_heads": 5}, "does not divide d_model = 48"), ({"rotary_share": 0.1}, "rotates 1 coordinates")],
)
def test_impossible_shapes_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(PicoError, match=message):
        parse_settings(NeoXConfig, {**SHAPE, **change}, "x.yaml")


def test_no_other_file_asks_for_this_architecture_by_name() -> None:
    source = Path(picolm.__file__).parent
    own, foreign = source / "model" / "neox.py", source / "capture" / "layouts.py"  # the second reads other people's folders
    for path in set(source.rglob("*.py")) - {own, foreign}:
        text = path.read_text(encoding="utf-8").replace('"picolm.model.neox"', "")
        assert not re.search(r"gpt_neox|NeoX", text), path
