"""Folders of the original pico-train, made here from its public file names and tensor names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.model.contract import load_model

pytestmark = pytest.mark.data


@pytest.fixture
def oracle(test_data: Path) -> Path:
    return test_data / "oracles" / "pico_decoder"


@pytest.fixture
def state(oracle: Path) -> dict[str, Tensor]:
    return load_file(oracle / "state_dict.safetensors")


@pytest.fixture
def folder(oracle: Path, tmp_path: Path) -> Path:
    settings = json.loads((oracle / "expected.json").read_text())["config"]
    library = {
        "architectures": ["PicoDecoderHF"],
        "auto_map": {"AutoModelForCausalLM": "pico_decoder.PicoDecoderHF"},
        "torch_dtype": "float32",
        "transformers_version": "4.45.2",
        "batch_size": 1024,
    }
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "pico_decoder", **library, **settings}))
    (tmp_path / "pico_decoder.py").write_text("raise SystemExit('remote code was executed')")
    return tmp_path


def assert_exact(folder: Path, oracle: Path) -> None:
    data = load_file(oracle / "data.safetensors")
    logits_BTV = load_model(folder)(data["tokens"][:, :-1])
    torch.testing.assert_close(logits_BTV, data["logits_float64_truth"], rtol=1e-5, atol=1e-5)


def test_a_published_folder_opens_with_the_exact_logits(folder: Path, state: dict[str, Tensor], oracle: Path) -> None:
    save_file({f"pico_decoder.{name}": value for name, value in state.items()}, folder / "model.safetensors")
    assert_exact(folder, oracle)


@pytest.mark.parametrize("prefix", ["", "_forward_module.", "pico_decoder.", "module._orig_mod."])
@pytest.mark.parametrize("key", ["_model", "module", None])
def test_a_fabric_checkpoint_opens_through_the_weights_only_loader(
    folder: Path, state: dict[str, Tensor], oracle: Path, prefix: str, key: str | None
) -> None:
    named = {prefix + name: value for name, value in state.items()}
    (folder / "fabric_state").mkdir()
    content = named if key is None else {key: named, "_optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "_step": 3}
    torch.save(content, folder / "fabric_state" / "checkpoint.pt")
    assert_exact(folder, oracle)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_fabric_checkpoint_that_would_run_code_is_refused(folder: Path, state: dict[str, Tensor], save) -> None:
    (folder / "fabric_state").mkdir()
    save({"_model": state, "_run": Payload()}, folder / "fabric_state" / "checkpoint.pt")
    with pytest.raises(PicoError, match=r"checkpoint\.pt is refused"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_a_damaged_fabric_checkpoint_is_refused(folder: Path, content: bytes) -> None:
    (folder / "fabric_state").mkdir()
    (folder / "fabric_state" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(PicoError, match=r"checkpoint\.pt"):
        load_model(folder)
