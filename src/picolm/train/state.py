"""What a resumed run needs beside the weights: optimiser, random generators, method, position. Tensors and JSON only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.records import durable

OPTIMIZER_FILE = "optimizer.safetensors"
GENERATOR_FILE = "random_rank{rank}.safetensors"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Copies on the CPU, safe from the updates that follow."""

    step: int
    tokens: int
    skipped: int
    optimizer_tensors: dict[str, Tensor]
    """`<plain parameter name>/<entry>` -> tensor, such as `output_norm.weight/exp_avg`."""
    optimizer_values: dict[str, Any]
    """Parameter groups without their parameters, and entries that are not tensors."""
    generators: list[dict[str, Tensor]]
    """State of torch's global generators by device type, one entry per process."""
    method: dict[str, Any]


def copy_state(
    *,
    step: int,
    tokens: int,
    skipped: int,
    optimizer: torch.optim.Optimizer,
    names: Mapping[int, str],
    method_state: dict[str, Any],
    generators: list[dict[str, Tensor]],
) -> TrainingState:
    """The state after `step` updates. `names`: id of a parameter -> its name."""
    tensors, values = _copy_optimizer(optimizer, names)
    return TrainingState(step, tokens, skipped, tensors, values, generators, json.loads(json.dumps(method_state)))


def write_state(folder: Path, state: TrainingState) -> None:
    """Write a state into the (not yet sealed) folder `training_state`."""
    folder.mkdir()
    save_file(state.optimizer_tensors, folder / OPTIMIZER_FILE)
    for rank, states in enumerate(state.generators):
        save_file(states, folder / GENERATOR_FILE.format(rank=rank))
    counts = {"step": state.step, "tokens": state.tokens, "skipped": state.skipped}
    content = {**counts, "optimizer": state.optimizer_values, "method": state.method}
    durable.write_json(folder / STATE_FILE, content)


def read_state(folder: Path) -> TrainingState:
    """The state in a verified `training_state` folder."""
    if not (folder / STATE_FILE).is_file():
        raise PicoError(f"{folder} does not exist", "this checkpoint keeps no training state, so a run cannot continue from it")
    content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return TrainingState(
        step=content["step"],
        tokens=content["tokens"],
        skipped=content["skipped"],
        optimizer_tensors=_read_tensors(folder / OPTIMIZER_FILE),
        optimizer_values=content["optimizer"],
        generators=[_read_tensors(path) for path in sorted(folder.glob(GENERATOR_FILE.format(rank="*")), key=_rank_of)],
        method=content["method"],
    )


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: TrainingState, *, with_groups: bool = True
) -> None:
    """Put a saved state into a fresh optimiser over the same parameters; without its groups, the fresh settings stay."""
    index = {names[id(parameter)]: number for number, parameter in enumerate(_parameters(optimizer))}
    entries: dict[int, dict[str, Any]] = {}
    for name, values in state.optimizer_values["entries"].items():
        entries.setdefault(index[name], {}).update(values)
    for key, tensor in state.optimizer_tensors.items():
        name, _, entry = key.rpartition("/")
        entries.setdefault(index[name], {})[entry] = tensor
    groups = optimizer.state_dict()["param_groups"]
    if with_groups:
        saved = state.optimizer_values["groups"]
        groups = [{**values, "params": group["params"]} for group, values in zip(groups, saved, strict=True)]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def copy_generators() -> dict[str, Tensor]:
    """State of the global generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Tensor]) -> None:
    """Inverse of `copy_generators`."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _rank_of(path: Path) -> int:
    return int(path.stem.removeprefix("random_rank"))


def _copy_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    entries: dict[str, dict[str, Any]] = {}
    for parameter in _parameters(optimizer):
        for entry, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"{names[id(parameter)]}/{entry}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                entries.setdefault(names[id(parameter)], {})[entry] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return tensors, {"groups": groups, "entries": entries}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Fresh copies: tensors mapped from a file can be aligned differently, which changes the order of sums."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
