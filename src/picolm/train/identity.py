"""`run.json`: what a run is, and whether a configuration still is that run."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from picolm.base.config import dump_yaml, flatten, identity_hash, identity_values, parse_yaml
from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig, parse_config

FORMAT = "picolm.run/1"
SHOWN_DIGITS = 12
"""Of a fingerprint, in messages; enough to name it."""
RECORDED_PACKAGES = ("picolm", "torch", "lightning-fabric", "numpy", "pyarrow", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Membership:
    """The place of a run in a study."""

    study: str
    """Id of the study."""
    variant: str
    seed: int
    """The study's seed; single streams may be seeded otherwise."""
    lock: str
    """Hash of the lock under which the run began."""


def new_identity(
    config: RunConfig[Any],
    *,
    data: dict[str, Any],
    parameters: int,
    forked_from: dict[str, Any] | None = None,
    member: Membership | None = None,
) -> dict[str, Any]:
    """The content of `run.json` for a run that begins now."""
    seeds = config.training.seeds.model_dump()
    return {
        "format": FORMAT,
        "name": config.run_name,
        "created": _now(),
        "variant": "" if member is None else member.variant,
        "seed": seeds["init"] if member is None else member.seed,
        "seeds": seeds,
        "code": code_state(),
        "environment": environment(),
        "data": data,
        "model": {"type": config.model.model_type, "parameters": parameters},
        "config_hash": identity_hash(config),
        "batch_sequences": config.data.dataloader.batch_size,
        "max_steps": config.training.max_steps,
        "forked_from": forked_from,
        "study": None if member is None else {"id": member.study, "lock": member.lock},
        "history": [],
    }


def code_state() -> dict[str, Any]:
    """Version of the package, and the commit of its source tree if it runs from one."""
    return {"version": importlib.metadata.version("picolm"), **_git_state()}


def environment() -> dict[str, Any]:
    """Versions and thread count: bit-identical repeats need the same ones. No host name, no user, no path."""
    versions = {package: importlib.metadata.version(package) for package in RECORDED_PACKAGES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "device": device,
        **versions,
    }


def begin(directory: RunDirectory, config: RunConfig[Any], identity: dict[str, Any]) -> None:
    """Create the run folder: configuration first, identity last."""
    directory.path.mkdir(parents=True, exist_ok=True)
    durable.write_text(directory.config_file, dump_yaml(config))
    directory.write_identity(identity)


def record_continuation(directory: RunDirectory, config: RunConfig[Any], step: int) -> None:
    """Note that the run continues from `step`, with the operational settings that differ from before."""
    before = flatten(read_config(directory))
    changes = {key: [before.get(key), value] for key, value in flatten(config).items() if before.get(key) != value}
    identity = directory.identity()
    identity["history"].append({"continued": _now(), "step": step, "changes": changes, "environment": environment()})
    durable.write_text(directory.config_file, dump_yaml(config))
    directory.write_identity(identity)


def read_config(directory: RunDirectory) -> RunConfig[Any]:
    """The resolved configuration of a run."""
    path = directory.config_file
    if not path.is_file():
        raise PicoError(
            f"{directory.path} has no training_config.yaml", "the run folder is damaged; restore it or choose another run name"
        )
    return parse_config(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path), default_name=directory.name)


def check_same_run(directory: RunDirectory, config: RunConfig[Any], data_fingerprint: str) -> None:
    """PicoError with the difference if `config` would be another run than the one in `directory`."""
    before, now = identity_values(read_config(directory)), identity_values(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        shown = "\n".join(f"  {key}: {_plain(before.get(key))} -> {_plain(now.get(key))}" for key in changed)
        raise PicoError(
            f"the run {directory.path} exists with another configuration:\n{shown}",
            f"set these back to continue it, or branch off with the same command and {_fork_options(directory)}",
        )
    known, accepted = directory.identity()["data"]["fingerprint"], config.checkpointing.training.accept_data or ""
    if known != data_fingerprint and not (len(accepted) >= SHOWN_DIGITS and data_fingerprint.startswith(accepted)):
        current = data_fingerprint[:SHOWN_DIGITS]
        raise PicoError(
            f"the run {directory.path} was trained on other data: fingerprint {known[:SHOWN_DIGITS]}, now {current}",
            "restore the data, or start a new run with --set checkpointing.run_name=NAME; to go on with these data, which is "
            f"recorded: --set checkpointing.training.accept_data={current}",
        )


def _fork_options(directory: RunDirectory) -> str:
    steps = directory.steps()
    fork = f"--fork-from {directory.path}@{steps[-1]} " if steps else ""
    return f"{fork}--set checkpointing.run_name=NAME"


def environment_notes(directory: RunDirectory) -> list[str]:
    """One sentence if versions or the machine are not those of the run so far: then it may not repeat bit for bit."""
    facts = directory.identity()
    before = facts["history"][-1]["environment"] if facts["history"] else facts["environment"]
    changed = [f"{key} {before.get(key)} -> {value}" for key, value in environment().items() if before.get(key) != value]
    return [f"note: {', '.join(changed)}: the run continues, but may no longer be bit-exact"] if changed else []


def _plain(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).strip().removesuffix("...").strip()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _git_state() -> dict[str, Any]:
    """Commit of the source tree picolm runs from, if it is one; None for an installed package."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _git(source, "rev-parse", "HEAD").strip()
        return {"git_commit": commit, "git_dirty": bool(_git(source, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_dirty": None}


def _git(source: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10).stdout
