"""The decoder against numbers computed independently of it, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from picolm.model.contract import load_model, save_model
from picolm.model.decoder import DecoderConfig, PicoDecoder

pytestmark = pytest.mark.data
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def oracle(test_data: Path) -> Path:
    return test_data / "oracles" / "pico_decoder"


@pytest.fixture(scope="module")
def expected(oracle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((oracle / "expected.json").read_text())
    return content


@pytest.fixture(scope="module")
def data(oracle: Path) -> dict[str, Tensor]:
    return load_file(oracle / "data.safetensors")


@pytest.fixture
def model(oracle: Path, expected: dict[str, Any]) -> PicoDecoder:
    decoder = PicoDecoder(DecoderConfig(**expected["config"]))
    decoder.load_state_dict(load_file(oracle / "state_dict.safetensors"))
    return decoder


def test_logits_equal_the_float64_truth(model: PicoDecoder, data: dict[str, Tensor]) -> None:
    logits_BTV = model(data["tokens"][:, :-1])
    torch.testing.assert_close(logits_BTV, data["logits_float64_truth"], rtol=TOLERANCE, atol=TOLERANCE)


def test_loss_equals_the_float64_truth(model: PicoDecoder, data: dict[str, Tensor], expected: dict[str, Any]) -> None:
    tokens, labels = data["tokens"][:, :-1], data["tokens"][:, 1:]
    loss = model.loss_sum(tokens, labels) / labels.numel()
    assert loss.item() == pytest.approx(expected["loss_float64"], rel=1e-6)


def test_every_gradient_equals_the_oracle(model: PicoDecoder, data: dict[str, Tensor], oracle: Path) -> None:
    labels = data["tokens"][:, 1:]
    (model.loss_sum(data["tokens"][:, :-1], labels) / labels.numel()).backward()
    truth = load_file(oracle / "gradients.safetensors")
    assert set(truth) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        error = (parameter.grad - truth[name]).norm() / truth[name].norm()
        assert float(error) < TOLERANCE, name


def test_last_token_activations_equal_the_oracle(model: PicoDecoder, data: dict[str, Tensor]) -> None:
    seen: dict[str, Tensor] = {}
    prefix = "last_token_activation."
    for name in (name.removeprefix(prefix) for name in data if name.startswith(prefix)):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out[:, -1]}))
    model(data["tokens"][:, :-1])
    assert seen
    for name, value in seen.items():
        torch.testing.assert_close(value, data[prefix + name], rtol=TOLERANCE, atol=TOLERANCE)


def test_cached_prefill_and_chunk_equal_the_oracle(model: PicoDecoder, data: dict[str, Tensor], expected: dict[str, Any]) -> None:
    tokens, prefill = data["tokens"][:, :-1], expected["kv_prefill_tokens"]
    cache = model.new_cache()
    torch.testing.assert_close(model(tokens[:, :prefill], cache=cache), data["kv_prefill_logits"], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(model(tokens[:, prefill:], cache=cache), data["kv_chunk_logits"], rtol=TOLERANCE, atol=TOLERANCE)


def test_one_token_at_a_time_equals_all_at_once(model: PicoDecoder, data: dict[str, Tensor]) -> None:
    cache = model.new_cache()
    steps = [model(data["tokens"][:, t : t + 1], cache=cache) for t in range(64)]
    torch.testing.assert_close(torch.cat(steps, dim=1), data["logits_float64_truth"], rtol=TOLERANCE, atol=TOLERANCE)


def test_six_training_steps_follow_the_oracle(model: PicoDecoder, data: dict[str, Tensor], expected: dict[str, Any]) -> None:
    trace = expected["training_trace"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=trace["lr"])
    micro_steps, rows = trace["gradient_accumulation_steps"], trace["rows_per_micro_step"]
    batches = data["train_tokens"].split(rows)
    for step in trace["steps"]:
        optimizer.param_groups[0]["lr"] = step["lr"]
        loss_of_step = 0.0
        for batch in batches[step["step"] * micro_steps : (step["step"] + 1) * micro_steps]:
            loss = model.loss_sum(batch[:, :-1], batch[:, 1:]) / (micro_steps * batch[:, 1:].numel())
            loss.backward()
            loss_of_step += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        assert loss_of_step == pytest.approx(step["loss"], rel=1e-5)
    parameters = dict(model.named_parameters())
    for name in (name for name in data if name.startswith("after_training.")):
        torch.testing.assert_close(parameters[name.removeprefix("after_training.")], data[name], rtol=1e-4, atol=TOLERANCE)


def test_the_llama_folder_of_the_oracle_opens_with_the_same_logits(oracle: Path, data: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((oracle / "llama_config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((oracle / "llama_state_dict.safetensors").read_bytes())
    logits_BTV = load_model(tmp_path)(data["tokens"][:, :-1])
    torch.testing.assert_close(logits_BTV, data["logits_float64_truth"], rtol=TOLERANCE, atol=TOLERANCE)


def test_saved_tensors_equal_the_llama_file_of_the_oracle(model: PicoDecoder, oracle: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    ours, truth = load_file(tmp_path / "model.safetensors"), load_file(oracle / "llama_state_dict.safetensors")
    assert ours.keys() == truth.keys()
    for name, value in truth.items():
        assert torch.equal(ours[name], value), name
