"""Other tools open our folders, offline, in environments of their own that know nothing of picolm.

`python tests/interop/make_environments.py` makes the environments. The versions tried are those listed there; the table in
docs/guides/interop.md records them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from picolm.model.contract import LanguageModel, build_model, save_model
from picolm.model.decoder import DecoderConfig
from picolm.model.export import export_sae_cache, find_hook
from picolm.model.neox import NeoXConfig
from tests.interop.make_environments import python_of

PROBES = Path(__file__).parent / "probes"
TEXT = ["the cat sat on the mat", "the dogs sit on the mats and look at the cat", "a cat that the dogs see sits there"]
PAIRS = [
    {"context": "the cat", "continuation": " sat on the mat", "good": "the cat sits there", "bad": "the cat sit there"},
    {"context": "the dogs", "continuation": " look", "good": "the dogs look at the mat", "bad": "the dogs looks at the mat"},
    {"context": "a cat that", "continuation": " the dogs see", "good": "a cat", "bad": "dogs a"},
]
SHAPE: dict[str, Any] = {"d_model": 48, "n_layers": 3, "vocab_size": 320, "max_seq_len": 64, "attention_n_heads": 6}
CONFIGS = {
    "llama": DecoderConfig(**SHAPE, attention_n_kv_heads=2, activation_hidden_dim=80, position_emb_theta=700.0),
    "qwen3": DecoderConfig(**SHAPE, attention_n_kv_heads=2, activation_hidden_dim=80, qk_norm=True, tied_embeddings=True),
    "neox": NeoXConfig(**SHAPE, activation_hidden_dim=80, rotary_share=0.5, position_emb_theta=300.0),
}
CLASSES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "neox": "GPTNeoXForCausalLM"}


def run_probe(lane: str, probe: str, *arguments: Path | str) -> dict[str, Any]:
    """What a probe printed, run by the interpreter of a lane without network."""
    python = python_of(lane)
    if not python.is_file():
        pytest.skip(f"no environment `{lane}`: make it with `python tests/interop/make_environments.py {lane}`")
    environment = {**os.environ, "PYTHONPATH": str(PROBES), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, PROBES / probe, *arguments], capture_output=True, text=True, timeout=500, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, BpeTrainer(special_tokens=["<|endoftext|>"], vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


class Saved:
    """A model, the folder it is saved in, and a file with what other tools must find."""

    def __init__(self, model: LanguageModel, folder: Path, tokenizer_file: Path) -> None:
        self.model, self.folder, self.reference = model, folder / "model", folder / "reference.safetensors"
        save_model(model, self.folder, tokenizer_file)
        tokens_BT = torch.randint(0, 250, (2, 40), generator=torch.Generator().manual_seed(1))
        seen: list[torch.Tensor] = []
        handle = model.get_submodule("layers.1.attention.v_proj").register_forward_hook(lambda _m, _i, out: seen.append(out))
        with torch.no_grad():
            logits_BTV = model(tokens_BT)
            handle.remove()
            self.generated = model.generate(tokens_BT[:1, :8], max_new_tokens=10)
            facts = {"tokens": tokens_BT, "logits": logits_BTV, "values_layer_1": seen[0], "prompt": tokens_BT[:1, :8].clone()}
            save_file({**facts, "ov_LHDD": self.ov_matrices()}, self.reference)

    def ov_matrices(self) -> torch.Tensor:
        """(L, H, D, D): W_O of each query head times W_V of its key/value head."""
        layout = self.model.layout()
        width, group = layout.head_width, layout.query_heads // layout.key_value_heads
        of_layer = []
        for layer in range(len(layout.names_with_role("query"))):
            output_OI = self.model.get_submodule(f"layers.{layer}.attention.o_proj").weight
            value_OI = self.model.get_submodule(f"layers.{layer}.attention.v_proj").weight
            heads = [
                output_OI[:, head * width : (head + 1) * width] @ value_OI[(head // group) * width : (head // group + 1) * width]
                for head in range(layout.query_heads)
            ]
            of_layer.append(torch.stack(heads))
        return torch.stack(of_layer).detach().contiguous()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> dict[str, Saved]:
    return {
        name: Saved(build_model(config, torch.Generator().manual_seed(7)), tmp_path_factory.mktemp(name), tokenizer_file)
        for name, config in CONFIGS.items()
    }


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(("lane", "generation"), [("modern", "5."), ("legacy", "4.57.")])
def test_both_generations_of_transformers_read_the_same_logits(
    saved: dict[str, Saved], kind: str, lane: str, generation: str
) -> None:
    found = run_probe(lane, "with_transformers.py", saved[kind].folder, saved[kind].reference)
    assert found["version"].startswith(generation)
    assert found["class"] == CLASSES[kind]
    assert found["logits"] < 1e-4
    assert found["generated"] == saved[kind].generated[0].tolist()
    assert found["eos"] == "<|endoftext|>"
    assert found["padded_inputs"] == ["attention_mask", "input_ids"] and found["padding_first"]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_transformer_lens_reads_the_same_logits_and_ov_circuits(saved: dict[str, Saved], kind: str) -> None:
    found = run_probe("modern", "with_transformer_lens.py", saved[kind].folder, saved[kind].reference)
    assert found["logits"] < 1e-4
    assert found["ov_shape"] == [3, 6, 48, 48] and found["ov"] < 1e-5
    assert found["values"] < 1e-5


def test_nnsight_reads_the_same_logits_and_values(saved: dict[str, Saved]) -> None:
    found = run_probe("modern", "with_nnsight.py", saved["llama"].folder, saved["llama"].reference)
    assert found["logits"] < 1e-4
    assert found["values"] < 1e-5


@torch.no_grad()
def log_likelihood(model: LanguageModel, tokenizer: Tokenizer, context: str, continuation: str) -> float:
    """Sum of log-probabilities of the continuation; an empty context is the end-of-text token."""
    whole = tokenizer.encode(context + continuation).ids
    before = tokenizer.encode(context).ids if context else [tokenizer.token_to_id("<|endoftext|>")]
    ids = whole if context else before + whole
    log_share_TV = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    return sum(log_share_TV[t - 1, ids[t]].item() for t in range(len(before), len(ids)))


def test_lm_eval_gives_our_log_likelihoods(saved: dict[str, Saved], tokenizer_file: Path, tmp_path: Path) -> None:
    pairs_file = tmp_path / "pairs.jsonl"
    pairs_file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    found = run_probe("modern", "with_lm_eval.py", saved["llama"].folder, pairs_file)
    model, tokenizer = saved["llama"].model, Tokenizer.from_file(str(tokenizer_file))
    ours = [log_likelihood(model, tokenizer, pair["context"], pair["continuation"]) for pair in PAIRS]
    assert found["scores"] == pytest.approx(ours, rel=1e-5)
    pairs = [[log_likelihood(model, tokenizer, "", pair[side]) for side in ("good", "bad")] for pair in PAIRS]
    for theirs, mine in zip(found["pair_scores"], pairs, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    assert found["accuracy"] == sum(good > bad for good, bad in pairs) / len(pairs)


def test_sae_lens_trains_on_our_activation_cache(saved: dict[str, Saved], tmp_path: Path) -> None:
    model = saved["llama"].model
    tokens_NT = torch.randint(0, 250, (64, 32), generator=torch.Generator().manual_seed(2))
    hook = find_hook(model, "layers.1")
    export_sae_cache(model, tmp_path / "cache", hook, tokens_NT, batch_sequences=16)
    found = run_probe("sae", "with_sae_lens.py", saved["llama"].folder, tmp_path / "cache", hook.hf_module, tmp_path)
    assert found["d_in"] == 48 and found["shape"] == [32, 48] and found["finite"]
