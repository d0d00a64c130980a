"""Writes a run folder as the original trainer leaves it, for tests of every room that reads one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

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
