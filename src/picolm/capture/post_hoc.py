"""`pico capture`: a series of somebody else's checkpoints becomes a run folder that `pico analyze` reads like our own.

Each checkpoint is fetched, looked at on the same rows, and sealed with `source.json` in place of weights; one is resident.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.capture.circuits import circuits_of
from picolm.capture.doctor import find_series_problems, labelled_step_problem, write_weight_sample
from picolm.capture.external import ObservedModel, Precision, load_observed, observe
from picolm.capture.plan import CapturePlan, LearningDynamicsConfig, resolve_positions
from picolm.capture.series import Member, Series
from picolm.capture.writer import SnapshotBatch, write_snapshot
from picolm.records import durable
from picolm.records.manifest import Manifest, content, manifest_hash, sealed_folder
from picolm.records.names import expand_patterns
from picolm.records.rundir import CheckpointFolder, RunDirectory, check_run_name
from picolm.records.snapshot import write_layout
from picolm.records.source import WeightSource, write_source

RUN_FORMAT = "picolm.run/1"
SERIES_FORMAT = "picolm.series/1"


@dataclass(frozen=True)
class Request:
    """What is to be captured from each checkpoint of a series, and on which rows."""

    series: Series
    batch: SnapshotBatch
    data_name: str
    decode: Callable[[list[int]], str] | None
    layers: tuple[str, ...] | None = None
    """Ends of plain names, or globs; None: value, output and down projections."""
    positions: tuple[int, ...] | str = (-1,)
    """Token positions, or `all`."""
    ov_gradients: bool = False
    """Whether the exact gradient of every output-value circuit is captured."""
    tokens_per_step: int | None = None
    """Training tokens per step of the series; None: not known."""
    precision: Precision = "float32"
    device: str = "cpu"
    batch_sequences: int = 4
    """Sequences per forward and backward pass; has no effect on what is recorded."""

    def identity(self) -> dict[str, Any]:
        """What makes two captures of a step the same."""
        return {
            "series": str(self.series),
            "data_fingerprint": self.batch.fingerprint,
            "rows": len(self.batch.rows),
            "layers": None if self.layers is None else list(self.layers),
            "positions": self.positions if isinstance(self.positions, str) else list(self.positions),
            "ov_gradients": self.ov_gradients,
            "tokens_per_step": self.tokens_per_step,
            "precision": self.precision,
        }


def capture_series(request: Request, members: Sequence[Member], run: RunDirectory, say: Callable[[str], None]) -> list[str]:
    """Capture every member that the run does not hold yet; one sentence for each thing that is odd about the series."""
    _begin(run, request)
    for number, member in enumerate(members, start=1):
        if member.step in run.steps():
            say(f"step {member.step} is captured already")
            continue
        folder, source = request.series.fetch(member)
        _capture(request, member, folder, source, run)
        say(f"step {member.step} captured ({number} of {len(members)}): {source.name}")
    local = members if request.series.repo is None else ()
    odd = [problem for member in local if (problem := labelled_step_problem(Path(member.name), member.step))]
    problems = [*odd, *find_series_problems(run)]
    description = {"format": SERIES_FORMAT, "series": str(request.series), "steps": run.steps(), "problems": problems}
    durable.write_json(run.source_file, description)
    return problems


def _begin(run: RunDirectory, request: Request) -> None:
    check_run_name(run.name, "--out")
    if run.identity_file.is_file():
        before = run.identity().get("capture")
        if before != request.identity():
            changed = [
                key for key, value in request.identity().items() if not isinstance(before, dict) or before.get(key) != value
            ]
            raise PicoError(
                f"{run.path} exists and was not captured like this: {', '.join(changed)} differ",
                "repeat the command that began it, or choose another --out",
            )
        return
    if run.path.is_dir() and any(run.path.iterdir()):
        raise PicoError(f"{run.path} exists and is not a run", "choose another --out")
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_identity(_new_identity(run, request))


def _new_identity(run: RunDirectory, request: Request) -> dict[str, Any]:
    packages = [name for name in ("picolm", "torch", "transformers", "safetensors") if _version(name)]
    return {
        "format": RUN_FORMAT,
        "name": run.name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "variant": "",
        "seed": None,
        "code": {"version": importlib.metadata.version("picolm")},
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "threads": torch.get_num_threads(),
            **{name: _version(name) for name in packages},
        },
        "data": {"name": Path(request.data_name).name, "fingerprint": request.batch.fingerprint},
        "model": {"type": str(request.series)},
        "config_hash": content(request.identity()),
        "capture": request.identity(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _capture(request: Request, member: Member, folder: Path, source: WeightSource, run: RunDirectory) -> None:
    """Look at one checkpoint and seal what was seen."""
    files = [folder / name for name in sorted(source.files)]
    model = load_observed(folder, files, request.precision, request.device)
    _check_rows(request.batch.tokens, model, request.data_name)
    plan = _plan(request, model)
    recorder = observe(model, plan, torch.from_numpy(request.batch.tokens), batch_sequences=request.batch_sequences)
    steps = [step for step in run.steps() if step < member.step]
    tokens = None if request.tokens_per_step is None else member.step * request.tokens_per_step
    manifest = Manifest(
        step=member.step,
        tokens=tokens,
        parent=manifest_hash(run.checkpoint(steps[-1])) if steps else None,
        config_hash=content(request.identity()),
        data_fingerprint=request.batch.fingerprint,
    )
    with sealed_folder(run.checkpoint(member.step), manifest) as temporary:
        write_source(temporary, source)
        write_layout(temporary, model.stored)
        durable.write_json(CheckpointFolder(temporary).model_config, model.config)
        write_weight_sample(temporary, model.module)
        write_snapshot(
            temporary,
            recorder,
            split="val",
            step=member.step,
            training_tokens=tokens,
            batch=request.batch,
            decode=request.decode,
            applied=False,
        )


def _plan(request: Request, model: ObservedModel) -> CapturePlan:
    names = list(model.live.tensors)
    chosen = expand_patterns(request.layers, names, "--layers") if request.layers else list(model.default_layers())
    if not chosen:
        raise PicoError("no value, output or down projection is known here", "name what to capture: --layers 'layers.*'")
    modules = tuple(name for name in chosen if model.module_of(name) is not None)
    settings = parse_settings(LearningDynamicsConfig, {"positions": request.positions}, "--positions")
    positions = resolve_positions(settings, request.batch.tokens.shape[1] - 1, seed=42)
    return CapturePlan(tuple(chosen), modules, positions, circuits_of(model.live) if request.ov_gradients else ())


def _check_rows(tokens: numpy.ndarray, model: ObservedModel, data_name: str) -> None:
    if int(tokens.max()) >= model.vocab_size:
        raise PicoError(
            f"{data_name} has token {int(tokens.max())}, the model's vocabulary is {model.vocab_size}",
            "prepare the text with the tokenizer of this series",
        )
    if model.max_seq_len is not None and tokens.shape[1] - 1 > model.max_seq_len:
        raise PicoError(
            f"a row of {data_name} predicts {tokens.shape[1] - 1} tokens, the model takes {model.max_seq_len}",
            "prepare the data with shorter rows",
        )
