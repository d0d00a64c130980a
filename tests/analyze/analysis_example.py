"""A small run on disk, written through records: three steps of a two-layer model in the Llama layout, with dynamics."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

from picolm.records.manifest import Manifest, sealed_folder
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.snapshot import Layout, Placement, write_layout

LAYERS, WIDTH, HIDDEN, HEADS, GROUPS, HEAD_WIDTH, SAMPLES = 2, 32, 48, 4, 2, 8, 24
STEPS = (0, 10, 20)


def layout() -> Layout:
    tensors = {"embedding_proj": Placement("model.embed_tokens.weight", "embedding")}
    for layer in range(LAYERS):
        stored, plain = f"model.layers.{layer}", f"layers.{layer}"
        for part, name, role in (
            ("attention.q_proj", "self_attn.q_proj", "query"),
            ("attention.k_proj", "self_attn.k_proj", "key"),
            ("attention.v_proj", "self_attn.v_proj", "value"),
            ("attention.o_proj", "self_attn.o_proj", "output"),
            ("attention_norm", "input_layernorm", "norm"),
            ("swiglu_norm", "post_attention_layernorm", "norm"),
            ("swiglu.w_0", "mlp.gate_proj", "gate"),
            ("swiglu.w_1", "mlp.up_proj", "up"),
            ("swiglu.w_2", "mlp.down_proj", "down"),
        ):
            rotary = "halves" if role in ("query", "key") else None
            tensors[f"{plain}.{part}"] = Placement(f"{stored}.{name}.weight", role, rotary=rotary)
    tensors["output_norm"] = Placement("model.norm.weight", "norm")
    tensors["de_embedding_proj"] = Placement("lm_head.weight", "unembedding")
    return Layout("pico_decoder", HEADS, GROUPS, HEAD_WIDTH, tensors)


SHAPES = {
    "query": (HEADS * HEAD_WIDTH, WIDTH),
    "key": (GROUPS * HEAD_WIDTH, WIDTH),
    "value": (GROUPS * HEAD_WIDTH, WIDTH),
    "output": (WIDTH, HEADS * HEAD_WIDTH),
    "norm": (WIDTH,),
    "gate": (HIDDEN, WIDTH),
    "up": (HIDDEN, WIDTH),
    "down": (WIDTH, HIDDEN),
    "embedding": (64, WIDTH),
    "unembedding": (64, WIDTH),
}
CAPTURED = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")


def write_checkpoint(run: RunDirectory, step: int, *, captured: bool = True) -> None:
    generator = torch.Generator().manual_seed(step)
    places = layout()
    weights = {place.tensor: torch.randn(SHAPES[place.role], generator=generator) for place in places.tensors.values()}
    with sealed_folder(run.checkpoint(step), Manifest(step, step * 1000, None, "hash")) as folder:
        checkpoint = CheckpointFolder(folder)
        write_layout(folder, places)
        save_file(weights, checkpoint.weights)
        if captured:
            write_dynamics(checkpoint, places, step, generator)


def write_dynamics(checkpoint: CheckpointFolder, places: Layout, step: int, generator: torch.Generator) -> None:
    checkpoint.learning_dynamics.mkdir()
    for split in ("train", "val"):
        activations, gradients, updates = {}, {}, {}
        for name, place in places.tensors.items():
            if name.endswith(CAPTURED):
                shape = SHAPES[place.role]
                activations[name] = torch.randn((SAMPLES, shape[0]), generator=generator).bfloat16()
                gradients[name] = torch.randn(shape, generator=generator) * 1e-3
                updates[name] = torch.randn(shape, generator=generator) * 1e-4
        save_file(activations, checkpoint.dynamics_tensors(split, "activations"))
        save_file(gradients, checkpoint.dynamics_tensors(split, "gradients"))
        if split == "train" and step != STEPS[-1]:
            save_file(updates, checkpoint.dynamics_tensors(split, "updates"))
        info = {"split": split, "step": step, "applied": split == "train" and step != STEPS[-1]}
        checkpoint.dynamics_info(split).write_text(json.dumps(info))


def write_run(directory: RunDirectory) -> RunDirectory:
    """A run of three steps."""
    directory.write_identity({"name": "small", "seed": 7})
    for step in STEPS:
        write_checkpoint(directory, step)
    return directory
