"""Checkpoint folders that the original pico-train wrote: the published pico-decoder suite. Read without its code.

`config.json` carries the original's own keys; tensors in `model.safetensors` are named `pico_decoder.` and the parameter, rows in
adjacent pairs. A folder that has lost that file may still hold `fabric_state/checkpoint.pt`, which is a pickle: it is read by
torch's weights-only loader, which builds tensors and plain containers and refuses all else.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.records.snapshot import Layout, Placement

PREFIX = "pico_decoder."
WRAPPERS = r"^((_forward_module|_orig_mod|module|pico_decoder)\.)+"
SETTINGS = (
    "d_model",
    "n_layers",
    "vocab_size",
    "max_seq_len",
    "attention_n_heads",
    "attention_n_kv_heads",
    "activation_hidden_dim",
    "norm_eps",
    "position_emb_theta",
)
"""Keys of `config.json` that shape the model; the rest is bookkeeping of the library that wrote it."""

FABRIC_FILES = ("fabric_state/checkpoint.pt", "fabric_state/checkpoint.pt/checkpoint/mp_rank_00_model_states.pt")
STATE_KEYS = ("_model", "model", "module", "state_dict")


def settings_from_original(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The decoder settings in a `config.json` of the original."""
    missing = [key for key in SETTINGS if key not in content]
    if missing:
        raise PicoError(f"{source}: {missing[0]} must be given", "a folder of the published pico-decoder suite states it")
    return {key: content[key] for key in SETTINGS}


def original_layout(layout: Layout) -> Layout:
    """The same parameters under the original's tensor names."""
    return native_layout(layout, PREFIX)


def native_layout(layout: Layout, prefix: str = "") -> Layout:
    """The same parameters stored under their own names, rows as they are; tied ones once, under the first name."""
    tensors: dict[str, Placement] = {}
    first_use: dict[str, str] = {}
    for name, place in layout.tensors.items():
        own = f"{prefix}{name}" if place.role == "bias" else f"{prefix}{name}.weight"
        stored = first_use.setdefault(place.tensor, own) if place.rows is None else own
        tensors[name] = Placement(stored, place.role)
    return Layout(layout.architecture, layout.query_heads, layout.key_value_heads, layout.head_width, tensors)


def fabric_checkpoint(folder: Path) -> Path | None:
    """The training state of the original in a checkpoint folder, if it has one."""
    return next((folder / name for name in FABRIC_FILES if (folder / name).is_file()), None)


def read_fabric_tensors(path: Path) -> dict[str, Tensor]:
    """The weights in a `checkpoint.pt`, named as in `model.safetensors`; PicoError if it holds more than tensors."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError, TypeError, AttributeError) as error:
        raise PicoError(
            f"{path} is refused: the weights-only loader cannot read it ({' '.join(str(error).split())[:120]})",
            "use the model.safetensors that the original saved beside fabric_state",
        ) from error
    state = next((content[key] for key in STATE_KEYS if isinstance(content, dict) and key in content), content)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise PicoError(f"{path} holds no named weights", "use the model.safetensors that the original saved beside fabric_state")
    return {PREFIX + _unwrapped(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _unwrapped(name: str) -> str:
    return re.sub(WRAPPERS, "", name)
