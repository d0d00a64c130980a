"""Folders: what we save opens in transformers, what transformers saves opens here, and bad ones are refused."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.data.tokenizer import load_tokenizer
from picolm.model.contract import build_model, load_model, load_weights, save_model
from picolm.model.decoder import DecoderConfig, PicoDecoder
from picolm.records.snapshot import open_snapshot

CONFIG = DecoderConfig(
    d_model=24,
    n_layers=2,
    vocab_size=61,
    max_seq_len=40,
    attention_n_heads=6,
    attention_n_kv_heads=2,
    activation_hidden_dim=40,
    position_emb_theta=700.0,
)
TOKENS_BT = torch.randint(0, 61, (2, 30), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> PicoDecoder:
    decoder = build_model(CONFIG, torch.Generator().manual_seed(7))
    assert isinstance(decoder, PicoDecoder)
    return decoder


@pytest.fixture
def folder(model: PicoDecoder, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_saved_model_comes_back_with_identical_logits(model: PicoDecoder, folder: Path) -> None:
    again = load_model(folder)
    assert again.config == CONFIG
    assert torch.equal(again(TOKENS_BT), model(TOKENS_BT))


def test_transformers_opens_the_folder_with_equal_logits(model: PicoDecoder, folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    llama = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(llama).__name__ == "LlamaForCausalLM"
    torch.testing.assert_close(llama(TOKENS_BT).logits, model(TOKENS_BT), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 6}, {"head_dim": 16}, {"rope_theta": 1e6}])
def test_a_llama_folder_of_transformers_opens_with_equal_logits(changes: dict[str, int], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 61}
    config = transformers.LlamaConfig(**{**shape, "intermediate_size": 80, "max_position_embeddings": 64, **changes})
    llama = transformers.LlamaForCausalLM(config).eval()
    llama.save_pretrained(tmp_path)
    torch.testing.assert_close(load_model(tmp_path)(TOKENS_BT), llama(TOKENS_BT).logits, rtol=1e-5, atol=1e-5)


def test_folders_in_several_files_open_too(folder: Path) -> None:
    whole = load_model(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": dict(list(tensors.items())[:7]), "b.safetensors": dict(list(tensors.items())[7:])}
    for name, part in halves.items():
        save_file(part, folder / name)
    weight_map = {tensor: name for name, part in halves.items() for tensor in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(load_model(folder)(TOKENS_BT), whole(TOKENS_BT))


def test_the_layout_gives_back_every_parameter_under_its_plain_name(model: PicoDecoder, folder: Path) -> None:
    weights = open_snapshot(folder, 0, "train").weights
    assert {f"{name}.weight" for name in weights} == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert torch.equal(weights[name.removesuffix(".weight")], parameter), name


def test_a_run_can_start_from_a_saved_folder(model: PicoDecoder, folder: Path) -> None:
    started = build_model(CONFIG.model_copy(update={"init_from": str(folder)}), torch.Generator().manual_seed(99))
    assert torch.equal(started(TOKENS_BT), model(TOKENS_BT))


def test_tokenizer_files_open_in_transformers(model: PicoDecoder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.train_from_iterator(["a b c", "b c d"], BpeTrainer(special_tokens=["<|endoftext|>"], vocab_size=30))
    tokenizer.save(str(tmp_path / "mine.json"))
    save_model(model, tmp_path / "saved", tmp_path / "mine.json")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert opened.eos_token_id == opened.pad_token_id == json.loads((tmp_path / "saved/config.json").read_text())["eos_token_id"]
    encoded = opened("a b c d", return_tensors="pt")
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert encoded["input_ids"][0].tolist() == tokenizer.encode("a b c d").ids


def test_the_settings_beside_a_tokenizer_travel_with_it(model: PicoDecoder, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    special = ["<|endoftext|>", "<|fin|>", "<s>", "<pad>"]
    tokenizer.train_from_iterator(["a b c", "b c d"], BpeTrainer(special_tokens=special, vocab_size=30))
    prepared = tmp_path / "data"
    prepared.mkdir()
    tokenizer.save(str(prepared / "tokenizer.json"))
    settings = {
        "eos_token": {"content": "<|fin|>", "special": True},
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "unk_token": "<not there>",
        "chat_template": "{{ messages }}",
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["evil.py", None]},
    }
    (prepared / "tokenizer_config.json").write_text(json.dumps(settings))
    save_model(model, tmp_path / "saved", prepared / "tokenizer.json")
    said = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast" and "auto_map" not in said and "unk_token" not in said
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (opened.eos_token, opened.pad_token, opened.chat_template) == ("<|fin|>", "<pad>", "{{ messages }}")
    assert opened.bos_token is None, "no row of prepared data begins with one"
    assert json.loads((tmp_path / "saved/config.json").read_text())["eos_token_id"] == tokenizer.token_to_id("<|fin|>")
    assert load_tokenizer(tmp_path / "saved").end_of_text == "<|fin|>"


def test_missing_extra_and_misshapen_tensors_are_refused_by_name(folder: Path) -> None:
    good = load_file(folder / "model.safetensors")
    norm = "model.layers.1.input_layernorm.weight"
    rewrite(folder, {name: value for name, value in good.items() if name != norm})
    with pytest.raises(PicoError, match=f"lack 1 of 21 tensors, first '{norm}'"):
        load_model(folder)
    rewrite(folder, {**good, "../../etc/passwd": torch.ones(1)})
    with pytest.raises(PicoError, match=r"1 tensors do not belong to the model, first '\.\./\.\./etc/passwd'"):
        load_model(folder)
    rewrite(folder, {**good, norm: torch.ones(25)})
    with pytest.raises(PicoError, match=r"has shape \(25,\) where the model has \(24,\)"):
        load_model(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "layout.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "<script>alert(1)</script>", "a\u202eb", "x" * 10_000])
def test_hostile_tensor_names_are_refused_and_shown_without_harm(folder: Path, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    rewrite(folder, {**load_file(folder / "model.safetensors"), name: torch.zeros(1)})
    with pytest.raises(PicoError, match="do not belong to the model") as caught:
        load_model(folder)
    assert len(caught.value.message) < 400 and caught.value.message.isascii()
    assert set(tmp_path.rglob("*")) == before


def test_two_hundred_thousand_tensors_are_refused(folder: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write_header(folder, json.dumps({f"t{i}": entry for i in range(200_000)}).encode())
    with pytest.raises(PicoError, match="names 200000 tensors"):
        load_model(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"not json",
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1000000]}}',
        b'{"a": {"dtype": "F32", "shape": [99999999999, 99999999999], "data_offsets": [0, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": 3}',
        b"[" * 100_000,
    ],
)
def test_hostile_headers_are_refused(folder: Path, header: bytes) -> None:
    write_header(folder, header)
    with pytest.raises(PicoError, match=r"not a readable safetensors file|lack"):
        load_model(folder)


def test_a_header_longer_than_the_file_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(PicoError, match="not a readable safetensors file"):
        load_model(folder)


def write_header(folder: Path, header: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 10**12, "num_hidden_layers = 1000000000000, the weights have only 21 tensors"),
        ("hidden_size", 10**9 * 24, "has shape"),
        ("hidden_act", "gelu", "hidden_act = 'gelu' is not supported"),
        ("attention_bias", True, "attention_bias = 'True' is not supported"),
        ("rope_parameters", {"rope_type": "llama3", "rope_theta": 700.0}, "rope_type 'llama3' is not supported"),
        ("rope_theta", 10000.0, "twice with different values"),
        ("num_attention_heads", 5, "attention_n_heads = 5: does not divide"),
        ("model_type", "gpt2", "model_type 'gpt2', which no architecture here opens"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, key: str, value: object, message: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if key == "num_attention_heads":
        config.pop("head_dim")
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(PicoError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(PicoError, match=r"config\.json"):
        load_model(folder)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was executed')",)


def test_pickles_are_refused_and_not_executed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(PicoError, match=r"pytorch_model\.bin is a pickle"):
        load_model(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with pytest.raises(PicoError, match="not a readable safetensors file"):
        load_model(folder)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "a.bin", "..", 3, None])
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: object) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(PicoError, match="outside its folder"):
        load_model(folder)


def test_code_named_in_a_folder_is_never_imported(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('code from a folder was executed')")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type=f"{tmp_path}/evil.py:x", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(PicoError, match="no architecture here opens"):
        load_model(folder)


def test_weights_of_another_shape_are_not_copied_into_a_model(folder: Path) -> None:
    other = PicoDecoder(CONFIG.model_copy(update={"vocab_size": 62}))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(PicoError, match="has shape"):
        load_weights(other, folder)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
