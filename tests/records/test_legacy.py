"""Folders of the original trainer are read as they are, and nothing in them is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from picolm.base.errors import PicoError
from picolm.records.legacy import LegacyRun, is_legacy_run

WIDTH, LAYERS, HEADS, GROUPS, HIDDEN, VOCABULARY = 16, 2, 4, 2, 24, 40


def write_original_folder(path: Path, steps: tuple[int, ...] = (0, 100)) -> dict[int, dict[str, torch.Tensor]]:
    """A run folder as the original trainer leaves it; the weights of each step."""
    path.mkdir(parents=True)
    (path / "training_config.yaml").write_text(
        f"data: {{dataloader: {{batch_size: 8}}}}\nmodel: {{d_model: {WIDTH}, n_layers: {LAYERS}, attention_n_heads: {HEADS}, "
        f"attention_n_kv_heads: {GROUPS}, activation_hidden_dim: {HIDDEN}, max_seq_len: 64, position_emb_theta: 10000.0}}\n"
    )
    weights = {step: _weights(step) for step in steps}
    for step in steps:
        checkpoint = path / "checkpoints" / f"step_{step}"
        dynamics = checkpoint / "learning_dynamics"
        dynamics.mkdir(parents=True)
        (checkpoint / "config.json").write_text('{"model_type": "pico_decoder"}')
        save_file({f"pico_decoder.{name}": tensor for name, tensor in weights[step].items()}, checkpoint / "model.safetensors")
        captured = [name for name in weights[step] if name.endswith(("v_proj.weight", "o_proj.weight", "w_2.weight"))]
        for split in ("train", "val"):
            plain = {name.removesuffix(".weight"): weights[step][name] for name in captured}
            torch.save(plain, dynamics / f"{split}_weights.pt")
            torch.save(
                {name: torch.randn(12, tensor.shape[0]) for name, tensor in plain.items()}, dynamics / f"{split}_activations.pt"
            )
            torch.save({name: torch.randn_like(tensor) for name, tensor in plain.items()}, dynamics / f"{split}_gradients.pt")
    (path / "checkpoints" / "latest").symlink_to(f"step_{steps[-1]}")
    return weights


def _weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kv = WIDTH // HEADS * GROUPS
    shapes: dict[str, tuple[int, ...]] = {"embedding_proj": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    shapes["de_embedding_proj"] = (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        attention = {"q_proj": (WIDTH, WIDTH), "k_proj": (kv, WIDTH), "v_proj": (kv, WIDTH), "o_proj": (WIDTH, WIDTH)}
        shapes |= {f"layers.{layer}.attention.{part}": shape for part, shape in attention.items()}
        feed_forward = {"w_0": (HIDDEN, WIDTH), "w_1": (HIDDEN, WIDTH), "w_2": (WIDTH, HIDDEN)}
        shapes |= {f"layers.{layer}.swiglu.{part}": shape for part, shape in feed_forward.items()}
        shapes |= {f"layers.{layer}.{part}": (WIDTH,) for part in ("attention_norm", "swiglu_norm")}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_steps_and_tensors_are_found_under_plain_names(tmp_path: Path) -> None:
    weights = write_original_folder(tmp_path / "original")
    run = LegacyRun(tmp_path / "original")
    assert is_legacy_run(run.path)
    assert (run.steps(), run.tokens(100)) == ([0, 100], 100 * 8 * 64)
    snapshot = run.snapshot(100, "train")
    assert len(snapshot.weights) == len(weights[100])
    for name in snapshot.weights:
        assert torch.equal(snapshot.weights[name], weights[100][f"{name}.weight"])
    assert list(snapshot.activations) == list(snapshot.gradients)
    assert snapshot.activations["layers.1.swiglu.w_2"].shape == (12, WIDTH)
    assert (snapshot.layout.query_heads, snapshot.layout.key_value_heads, snapshot.layout.head_width) == (4, 2, 4)


def test_captured_weights_stand_in_for_a_missing_model_file(tmp_path: Path) -> None:
    weights = write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "checkpoints" / "step_0" / "model.safetensors").unlink()
    snapshot = LegacyRun(tmp_path / "original").snapshot(0, "val")
    assert torch.equal(snapshot.weights["layers.0.attention.v_proj"], weights[0]["layers.0.attention.v_proj.weight"])
    assert len(snapshot.weights) == 3 * LAYERS


def test_what_was_not_captured_has_a_reason(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "checkpoints" / "step_0" / "learning_dynamics" / "val_gradients.pt").unlink()
    snapshot = LegacyRun(tmp_path / "original").snapshot(0, "val")
    assert snapshot.gradients.reason == "gradients of split val were not captured at this step"
    assert snapshot.updates.reason == "the original trainer captures no updates"


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_code_in_a_file_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_original_folder(tmp_path / "original")
    poisoned = tmp_path / "original" / "checkpoints" / "step_0" / "learning_dynamics" / "val_activations.pt"
    for content in (pickle.dumps({"layers.0.swiglu.w_2": Malicious()}), None):
        if content is None:
            torch.save({"layers.0.swiglu.w_2": Malicious()}, poisoned)
        else:
            poisoned.write_bytes(content)
        with pytest.raises(PicoError, match="cannot be read as plain tensors"):
            LegacyRun(tmp_path / "original").snapshot(0, "val")
        assert not (tmp_path / "executed").exists()


def test_run_of_ours_is_not_taken_for_one_of_theirs(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "run.json").write_text("{}")
    assert not is_legacy_run(tmp_path / "original")
    assert not is_legacy_run(tmp_path)


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    run = LegacyRun(tmp_path / "original")
    before = run.hashes(0, "train", ("weights", "gradients"))
    torch.save({"layers.0.swiglu.w_2": torch.zeros(2, 2)}, run.captured_file(0, "train", "gradients"))
    after = run.hashes(0, "train", ("weights", "gradients"))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
