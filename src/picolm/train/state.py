"""What a resumed run needs beside the weights: optimiser, random generators, method, position. Tensors and JSON only."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.train.methods.contract import MethodState

OPTIMIZER_FILE = "optimizer.safetensors"
GENERATOR_FILE = "random_rank{rank}.safetensors"
METHOD_FILE = "method.safetensors"
METHOD_PROCESS_FILE = "method_rank{rank}.safetensors"
STATE_FILE = "state.json"
COUNTS = ("step", "tokens", "skipped", "method_tokens", "flops", "method_flops", "loss_scale", "loss_scale_updates")


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
    """JSON values of the training method."""
    method_tensors: dict[str, Tensor] = field(default_factory=dict)
    method_of_processes: list[dict[str, Tensor]] = field(default_factory=list)
    """The method's own tensors of each process; empty if it has none."""
    method_tokens: int = 0
    flops: float = 0.0
    method_flops: float = 0.0
    loss_scale: float | None = None
    """Factor of the loss in the backward pass; None where none is needed."""
    loss_scale_updates: int = 0

    def method_state(self, rank: int, world: int) -> MethodState:
        """What the method gave; tensors of a single process only for as many processes as there were."""
        of_processes = self.method_of_processes if len(self.generators) == world else []
        return MethodState(self.method, self.method_tensors, of_processes[rank] if of_processes else {})


def copy_state(
    *,
    step: int,
    tokens: int,
    skipped: int,
    optimizer: torch.optim.Optimizer,
    names: Mapping[int, str],
    method_state: MethodState | None = None,
    generators: list[dict[str, Tensor]],
    method_of_processes: list[dict[str, Tensor]] | None = None,
    method_tokens: int = 0,
    flops: float = 0.0,
    method_flops: float = 0.0,
    loss_scale: float | None = None,
    loss_scale_updates: int = 0,
) -> TrainingState:
    """The state after `step` updates. `names`: id of a parameter -> its name."""
    tensors, values = _copy_optimizer(optimizer, names)
    method_state = method_state or MethodState()
    return TrainingState(
        step,
        tokens,
        skipped,
        tensors,
        values,
        generators,
        method=json.loads(json.dumps(dict(method_state.values))),
        method_tensors={name: _copy(tensor) for name, tensor in method_state.tensors.items()},
        method_of_processes=method_of_processes if method_state.process_tensors and method_of_processes else [],
        method_tokens=method_tokens,
        flops=flops,
        method_flops=method_flops,
        loss_scale=loss_scale,
        loss_scale_updates=loss_scale_updates,
    )


def write_state(folder: Path, state: TrainingState) -> None:
    """Write a state into the (not yet sealed) folder `training_state`."""
    folder.mkdir()
    save_file(state.optimizer_tensors, folder / OPTIMIZER_FILE)
    for rank, states in enumerate(state.generators):
        save_file(states, folder / GENERATOR_FILE.format(rank=rank))
    if state.method_tensors:
        save_file(state.method_tensors, folder / METHOD_FILE)
    for rank, tensors in enumerate(state.method_of_processes):
        save_file(tensors, folder / METHOD_PROCESS_FILE.format(rank=rank))
    counts = {name: getattr(state, name) for name in COUNTS}
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
        generators=_read_by_rank(folder, GENERATOR_FILE),
        method=content["method"],
        method_tensors=_read_tensors(folder / METHOD_FILE) if (folder / METHOD_FILE).is_file() else {},
        method_of_processes=_read_by_rank(folder, METHOD_PROCESS_FILE),
        method_tokens=content.get("method_tokens", 0),
        flops=content.get("flops", 0.0),
        method_flops=content.get("method_flops", 0.0),
        loss_scale=content.get("loss_scale"),
        loss_scale_updates=content.get("loss_scale_updates", 0),
    )


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str], state: TrainingState, *, forking: bool = False
) -> None:
    """Put a saved state into a fresh optimiser over the same parameters.

    Forking: the fresh settings stay, and so does the empty state of parameters that the saved run did not have.
    """
    index = {names[id(parameter)]: number for number, parameter in enumerate(_parameters(optimizer))}
    saved = dict(state.optimizer_values["entries"])
    for key, tensor in state.optimizer_tensors.items():
        name, _, entry = key.rpartition("/")
        saved[name] = {**saved.get(name, {}), entry: tensor}
    entries = {index[name]: values for name, values in saved.items() if not forking or name in index}
    groups = optimizer.state_dict()["param_groups"]
    if not forking:
        settings = state.optimizer_values["groups"]
        groups = [{**values, "params": group["params"]} for group, values in zip(groups, settings, strict=True)]
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


def _read_by_rank(folder: Path, pattern: str) -> list[dict[str, Tensor]]:
    paths = (folder / pattern.format(rank=rank) for rank in itertools.count())
    return [_read_tensors(path) for path in itertools.takewhile(Path.is_file, paths)]


def _copy_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    entries: dict[str, dict[str, Any]] = {}
    for parameter in _parameters(optimizer):
        for entry, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"{names[id(parameter)]}/{entry}"] = _copy(value)
            else:
                entries.setdefault(names[id(parameter)], {})[entry] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return tensors, {"groups": groups, "entries": entries}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Fresh copies: tensors mapped from a file can be aligned differently, which changes the order of sums."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}
