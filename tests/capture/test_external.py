"""What is seen in somebody else's model, against autograd on that model and against our own implementation of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from picolm.capture.external import load_observed
from picolm.capture.post_hoc import Request, capture_series
from picolm.capture.series import parse_series
from picolm.capture.writer import SnapshotBatch
from picolm.model.contract import load_model
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import Snapshot, open_snapshot

from .series_example import HEADS, KINDS, VOCABULARY, WIDTH

HEAD_WIDTH = WIDTH // HEADS


def captured(folder: Path, out: Path, batch: SnapshotBatch, **changes: Any) -> Snapshot:
    """The snapshot of step 4, everything captured in double precision."""
    settings: dict[str, Any] = {"layers": ("*",), "positions": (3, -1), "precision": "float64", **changes}
    series = parse_series(str(folder / "step{step}"))
    request = Request(series=series, batch=batch, data_name="data", decode=None, **settings)
    run = RunDirectory(out)
    capture_series(request, series.members([4]), run, lambda sentence: None)
    return open_snapshot(run.checkpoint(4), 4, "val")


def theirs(folder: Path, batch: SnapshotBatch) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """The model itself, gradients of its own mean loss, and inputs of its modules, from one pass over all rows."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "step4").double().eval()
    inputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}) if given else None)
    tokens_BT = torch.from_numpy(batch.tokens)
    logits_BTV = model(tokens_BT[:, :-1]).logits
    chance_BTV = torch.log_softmax(logits_BTV, dim=-1)
    (-chance_BTV.gather(-1, tokens_BT[:, 1:, None]).mean()).backward()
    return model, {name: parameter.grad for name, parameter in model.named_parameters()}, inputs


def at_positions(output_BTX: Tensor) -> Tensor:
    return output_BTX[:, [3, -1]].flatten(0, 1)


def assert_near(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected.to(ours.dtype), rtol=1e-9, atol=1e-12)


def assert_same_to_single_precision(ours: Tensor, expected: Tensor) -> None:
    """As near as can be: transformers takes root mean squares in float32 whatever the model's precision."""
    assert ours.shape == expected.shape
    assert (ours - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("kind", ["olmo2", "llama"])
def test_gradients_and_activations_of_named_modules_are_those_of_the_model(
    all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, kind: str
):
    ours = captured(all_series[kind], tmp_path / "run", batch)
    model, gradients, inputs = theirs(all_series[kind], batch)
    names = {"attention.v_proj": "self_attn.v_proj", "attention.o_proj": "self_attn.o_proj", "swiglu.w_2": "mlp.down_proj"}
    for layer in (0, 1):
        for plain, stored in names.items():
            weight = model.get_submodule(f"model.layers.{layer}.{stored}").weight
            assert_near(ours.weights[f"layers.{layer}.{plain}"].double(), weight)
            assert_near(ours.gradients[f"layers.{layer}.{plain}"], gradients[f"model.layers.{layer}.{stored}.weight"])
            output_BTX = inputs[f"model.layers.{layer}.{stored}"] @ weight.T
            assert_near(ours.activations[f"layers.{layer}.{plain}"], at_positions(output_BTX).detach())
    assert_near(ours.gradients["embedding_proj"], gradients["model.embed_tokens.weight"])
    assert_near(ours.gradients["de_embedding_proj"], gradients["lm_head.weight"])


def test_a_fused_tensor_of_gpt_neox_is_split_into_queries_keys_and_values(
    all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path
):
    ours = captured(all_series["gpt_neox"], tmp_path / "run", batch)
    model, gradients, inputs = theirs(all_series["gpt_neox"], batch)
    for layer in (0, 1):
        stored = f"gpt_neox.layers.{layer}.attention.query_key_value"
        module = model.get_submodule(stored)
        outputs_BTH3K = (inputs[stored] @ module.weight.T + module.bias).unflatten(-1, (HEADS, 3, HEAD_WIDTH))
        for index, part in enumerate("qkv"):
            plain = f"layers.{layer}.attention.{part}_proj"
            for tensors, fused in ((ours.weights, module.weight), (ours.gradients, gradients[f"{stored}.weight"])):
                assert_near(tensors[plain].double(), fused.unflatten(0, (HEADS, 3, HEAD_WIDTH))[:, index].flatten(0, 1))
            assert_near(
                ours.gradients[f"{plain}.bias"], gradients[f"{stored}.bias"].view(HEADS, 3, HEAD_WIDTH)[:, index].flatten()
            )
            assert_near(ours.activations[plain], at_positions(outputs_BTH3K[:, :, :, index].flatten(2)).detach())


@pytest.mark.parametrize("kind", ["gpt_neox", "llama"])
def test_a_series_is_seen_as_our_own_model_of_it_is(all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, kind: str):
    """Rotary order included: our decoder keeps pairs side by side, the stored one in halves."""
    ours = captured(all_series[kind], tmp_path / "run", batch)
    model = load_model(all_series[kind] / "step4").double()
    stored = load_observed(all_series[kind] / "step4", [all_series[kind] / "step4/model.safetensors"], "float32", "cpu").stored
    assert stored.tensors == model.layout().tensors
    outputs: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, given, output, name=name: outputs.update({name: output.detach()}))
    tokens_BT = torch.from_numpy(batch.tokens)
    (model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()).backward()
    model(tokens_BT[:, :-1])  # the head is not called as a module when the loss is asked for
    parameters = dict(model.named_parameters())
    assert set(ours.gradients) == set(model.layout().tensors)
    for name, gradient in ours.gradients.items():
        parameter = parameters.get(f"{name}.weight", parameters.get(name))
        assert_same_to_single_precision(gradient, parameter.grad)
    for name, activation_SX in ours.activations.items():
        assert_same_to_single_precision(activation_SX, at_positions(outputs[name]))


def test_how_the_rows_are_split_into_passes_does_not_matter(all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path):
    whole, single = (captured(all_series["olmo2"], tmp_path / str(size), batch, batch_sequences=size) for size in (6, 1))
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(single.gradients[name], gradient, rtol=1e-9, atol=1e-12)
        if name in whole.activations:
            torch.testing.assert_close(single.activations[name], whole.activations[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_value_output_and_down_projections_are_captured(
    all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, kind: str
):
    ours = captured(all_series[kind], tmp_path / "run", batch, layers=None, precision="float32")
    down = "mlp.w_down" if kind == "gpt_neox" else "swiglu.w_2"
    expected = {f"layers.{layer}.{part}" for layer in (0, 1) for part in ("attention.v_proj", "attention.o_proj", down)}
    assert set(ours.gradients) == set(ours.activations) == expected
    assert ours.info["dtypes"] == {"activations": ["float32"], "gradients": ["float32"]}


def test_the_published_form_of_a_pico_decoder_is_captured_too(batch: SnapshotBatch, tmp_path: Path):
    from safetensors.torch import save_file

    from picolm.model.decoder import DecoderConfig, PicoDecoder

    config = DecoderConfig(
        d_model=16, n_layers=1, vocab_size=VOCABULARY, max_seq_len=32, attention_n_heads=4, activation_hidden_dim=24
    )
    model = PicoDecoder(config)
    folder = tmp_path / "published" / "step4"
    folder.mkdir(parents=True)
    save_file({f"pico_decoder.{name}": value for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config.model_dump(), "model_type": "pico_decoder"}))
    ours = captured(tmp_path / "published", tmp_path / "run", batch)
    tokens_BT = torch.from_numpy(batch.tokens)
    model.double()
    (model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()).backward()
    for part in ("attention.q_proj", "swiglu.w_2"):
        gradient = model.get_submodule(f"layers.0.{part}").weight.grad
        torch.testing.assert_close(ours.gradients[f"layers.0.{part}"], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_circuit_gradients_of_a_series_give_back_those_of_its_values(
    all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, kind: str
):
    ours = captured(all_series[kind], tmp_path / "run", batch, ov_gradients=True)
    shared = HEADS // ours.layout.key_value_heads
    for layer in (0, 1):
        gradient_HDD = ours.tensors("ov_gradients")[f"layers.{layer}.ov_gradient"]
        output_DHK = ours.weights[f"layers.{layer}.attention.o_proj"].double().unflatten(1, (HEADS, HEAD_WIDTH))
        per_head = torch.einsum("dhk,hde->hke", output_DHK, gradient_HDD)
        found = per_head.unflatten(0, (-1, shared)).sum(1).flatten(0, 1)
        assert_same_to_single_precision(found, ours.gradients[f"layers.{layer}.attention.v_proj"])
