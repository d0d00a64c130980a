"""`pico export`: three forms, each opened again."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from typer.testing import CliRunner, Result

from picolm.base.errors import PicoError
from picolm.model import export as exports
from picolm.model.contract import LanguageModel, build_model, load_model, save_model
from picolm.model.decoder import DecoderConfig
from picolm.model.neox import NeoXConfig

DECODER = DecoderConfig(
    d_model=24, n_layers=3, vocab_size=61, attention_n_heads=6, attention_n_kv_heads=2, activation_hidden_dim=40
)
CONFIGS = [
    DECODER,
    DECODER.model_copy(update={"tied_embeddings": True, "qk_norm": True}),
    NeoXConfig(d_model=32, n_layers=2, vocab_size=61, activation_hidden_dim=40),
]
TOKENS_BT = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(1))


def saved(config: DecoderConfig | NeoXConfig, folder: Path) -> LanguageModel:
    model = build_model(config, torch.Generator().manual_seed(7))
    save_model(model, folder)
    return model


def export(*arguments: str) -> Result:
    import typer

    from picolm.cli.export import export as command

    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("config", CONFIGS, ids=["llama", "qwen3", "neox"])
@pytest.mark.parametrize("form", ["llama", "pytorch"])
def test_exports_open_again_with_the_same_logits_and_say_so(
    config: DecoderConfig | NeoXConfig, form: str, tmp_path: Path
) -> None:
    model = saved(config, tmp_path / "model")
    result = export(str(tmp_path / "model"), "--to", form, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "read by picolm: 0.00e+00" in result.stdout
    assert ("read by transformers" in result.stdout) is (form == "llama")
    assert torch.equal(load_model(tmp_path / "out")(TOKENS_BT), model(TOKENS_BT))


def test_the_pytorch_file_is_a_state_dict(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = saved(DECODER, tmp_path / "model")
    export(str(tmp_path / "model"), "--to", "pytorch", "--out", str(tmp_path / "out"))
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state.keys() == model.state_dict().keys()
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("config", "module", "hf_module"),
    [
        (DECODER, "layers.1", "model.layers.1"),
        (DECODER, "layers.2.swiglu.w_2", "model.layers.2.mlp.down_proj"),
        (CONFIGS[2], "layers.0", "gpt_neox.layers.0"),
    ],
)
def test_activations_are_stored_under_the_name_transformers_knows(
    config: DecoderConfig | NeoXConfig, module: str, hf_module: str, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    model = saved(config, tmp_path / "model")
    ids = numpy.random.default_rng(0).integers(0, 61, (5, 20))
    numpy.save(tmp_path / "ids.npy", ids)
    options = [
        "--data",
        str(tmp_path / "ids.npy"),
        "--module",
        module,
        "--context",
        "16",
        "--rows",
        "4",
        "--batch-sequences",
        "3",
    ]
    result = export(str(tmp_path / "model"), "--to", "sae-cache", "--out", str(tmp_path / "out"), *options)
    assert result.exit_code == 0, result.output
    assert "read by transformers" in result.stdout
    stored = datasets.load_from_disk(str(tmp_path / "out")).with_format("numpy")
    assert stored.column_names == [hf_module, "token_ids"]
    assert (stored["token_ids"][:] == ids[:4, :16]).all()
    hook = exports.find_hook(model, module)
    fresh = exports.activations(model, hook, torch.from_numpy(ids[:4, :16]))
    numpy.testing.assert_allclose(numpy.asarray(stored[hf_module][:]), fresh.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", ["layers.9", "layers.0.attention.q_proj", "layers.0.atention.v_proj"])
def test_modules_without_an_equal_elsewhere_are_refused(module: str, tmp_path: Path) -> None:
    model = saved(DECODER, tmp_path / "model")
    with pytest.raises(PicoError, match=f"--module {module}"):
        exports.find_hook(model, module)


def test_a_wrong_export_is_an_error() -> None:
    with pytest.raises(PicoError, match="does not agree"):
        exports.checked([exports.Parity("x", float("nan"))])


def test_an_existing_folder_and_missing_data_are_refused(tmp_path: Path) -> None:
    saved(DECODER, tmp_path / "model")
    for arguments in (["--to", "llama", "--out", str(tmp_path)], ["--to", "sae-cache", "--out", str(tmp_path / "x")]):
        result = export(str(tmp_path / "model"), *arguments)
        assert isinstance(result.exception, PicoError)
