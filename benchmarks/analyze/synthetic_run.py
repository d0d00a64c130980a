"""A run folder in the shapes of a pico-decoder, with as much in it as the analysis reads: Gaussian weights, gradients and
activations whose spectra fall off as 1/i, as those of trained models do."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from picolm.records.manifest import Manifest, sealed_folder
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.snapshot import Layout, Placement, write_layout

QUERY_HEADS, GROUPS = 12, 4


def layer_shapes(width: int) -> dict[str, tuple[str, tuple[int, int]]]:
    """Part -> (role, shape)."""
    key_value_width = width // QUERY_HEADS * GROUPS
    return {
        "attention.v_proj": ("value", (key_value_width, width)),
        "attention.o_proj": ("output", (width, width)),
        "swiglu.w_2": ("down", (width, 4 * width)),
    }


def falling(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A matrix whose singular values fall off roughly as 1/i, in random directions."""
    few = min(rows, columns)
    left, right = (torch.randn(size, few, generator=generator) for size in (rows, columns))
    return (left / torch.arange(1, few + 1)) @ right.T / few


def write_run(folder: Path, *, width: int, layers: int, steps: int, samples: int) -> RunDirectory:
    """The run; checkpoints at steps 0, 100, 200, ..."""
    run = RunDirectory(folder)
    run.write_identity({"name": folder.name, "seed": 0})
    shapes = layer_shapes(width)
    names = {f"layers.{layer}.{part}": shapes[part] for layer in range(layers) for part in shapes}
    layout = Layout(
        "pico_decoder",
        QUERY_HEADS,
        GROUPS,
        width // QUERY_HEADS,
        {name: Placement(f"{name}.weight", role) for name, (role, _) in names.items()},
    )
    for number in range(steps):
        step = number * 100
        generator = torch.Generator().manual_seed(step)
        with sealed_folder(run.checkpoint(step), Manifest(step, step * 1000, None, "benchmark")) as sealed:
            checkpoint = CheckpointFolder(sealed)
            write_layout(sealed, layout)
            weights = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.02 for name, (_, shape) in names.items()}
            save_file(weights, checkpoint.weights)
            checkpoint.learning_dynamics.mkdir()
            gradients = {name: falling(*shape, generator) for name, (_, shape) in names.items()}
            activations = {name: falling(samples, shape[0], generator) for name, (_, shape) in names.items()}
            for split, data_type, tensors in (("train", "gradients", gradients), ("val", "activations", activations)):
                save_file(tensors, checkpoint.dynamics_tensors(split, data_type))
                checkpoint.dynamics_info(split).write_text(json.dumps({"split": split, "step": step}))
    return run
