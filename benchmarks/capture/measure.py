"""What looking into a training step costs, in ordinary training steps. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import torch

from picolm.capture.circuits import circuits_of
from picolm.capture.plan import CapturePlan
from picolm.capture.writer import SnapshotBatch
from picolm.records.rundir import RunDirectory
from picolm.train.config import parse_config
from picolm.train.loop import clip_gradients, update
from picolm.train.observation import StepObservation, ValBatch
from picolm.train.run import Parts, step_batch
from picolm.train.setup import build_training


class RandomTokens:
    """A `TokenSource` of random rows."""

    def __init__(self, *, vocabulary: int, row_length: int) -> None:
        self.name, self.fingerprint, self.manifest, self.tokenizer_file = "random", "0" * 64, {}, None
        self.rows, self.row_length, self._vocabulary = 10**6, row_length, vocabulary

    def split(self, name: str) -> RandomTokens:
        return self

    def read(self, rows: numpy.ndarray) -> numpy.ndarray:
        return numpy.random.default_rng(0).integers(0, self._vocabulary, (len(rows), self.row_length))


def build(arguments: argparse.Namespace, folder: Path) -> tuple[Parts, CapturePlan]:
    options = {"vocabulary": arguments.vocabulary, "row_length": arguments.length + 1}
    content: dict[str, Any] = {
        "data": {
            "dataset": {"name": f"{__file__}:RandomTokens", "options": options},
            "dataloader": {"batch_size": arguments.batch},
        },
        "model": {
            "d_model": arguments.width,
            "n_layers": arguments.layers,
            "vocab_size": arguments.vocabulary,
            "max_seq_len": arguments.length,
            "activation_hidden_dim": 4 * arguments.width,
        },
        "training": {
            "max_steps": 1000,
            "compile": arguments.compile,
            "optimization": {"gradient_accumulation_steps": 1},
            "fabric": {"precision": arguments.precision, "accelerator": arguments.device},
        },
        "checkpointing": {"learning_dynamics": {"eval_data": None}},
        "evaluation": {"metrics": None},
    }
    training = build_training(parse_config(content, "benchmark", default_name="benchmark"), RunDirectory(folder / "run"))
    assert training.plan is not None
    return training.parts, training.plan


def one_step(parts: Parts, observation: StepObservation, plan: CapturePlan | None, *, val: bool) -> float:
    """Seconds of a training step, watched if there is a plan."""
    batch = step_batch(parts, 0, parts.whole_loader.batch_of_step(0))
    wait(parts)
    begun = time.perf_counter()
    if plan is not None:
        observation.begin(batch, plan, val=val)
    with observation.observing():
        result = parts.method.forward_backward(parts.fabric_model, batch, parts.fabric)
    observation.copy_gradients(result.objective)
    clip_gradients(parts.plain_tensors, 1.0)
    with observation.observing_update():
        update(parts, 0, True)
    observation.finish()
    wait(parts)
    return time.perf_counter() - begun


def wait(parts: Parts) -> None:
    if parts.fabric.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("width", 96), ("layers", 12), ("vocabulary", 50304), ("batch", 8), ("length", 256), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts, plan = build(arguments, Path(folder))
    exact = replace(plan, circuits=circuits_of(parts.model.layout()))
    everything = replace(exact, moments=True, micro_batch_norms=True)
    rows = numpy.arange(arguments.batch)
    val_batch = ValBatch(SnapshotBatch(rows, parts.whole_loader.batch_of_step(1).numpy(), ""), arguments.batch)
    observation = StepObservation(parts, val_batch)
    contenders: dict[str, Callable[[], float]] = {
        "ordinary": lambda: one_step(parts, observation, None, val=False),
        "train": lambda: one_step(parts, observation, plan, val=False),
        "train, OV gradients": lambda: one_step(parts, observation, exact, val=False),
        "train, OV gradients, moments, norms": lambda: one_step(parts, observation, everything, val=False),
        "train and val": lambda: one_step(parts, observation, plan, val=True),
        "train and val, OV gradients": lambda: one_step(parts, observation, exact, val=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds + 1):
        for name, run in contenders.items():
            taken = run()
            if number:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    size = f"width {arguments.width}, {arguments.layers} layers, {arguments.batch} x {arguments.length} tokens"
    print(f"{size}, {parts.fabric.device}, {torch.get_num_threads()} threads")
    for name, median in medians.items():
        extra = (median - medians["ordinary"]) / medians["ordinary"]
        print(f"{name:40} {median:9.3f} s  {extra:+7.2f} steps  (from {min(seconds[name]):.3f} to {max(seconds[name]):.3f} s)")
    if arguments.json:
        arguments.json.write_text(json.dumps({"settings": {k: str(v) for k, v in vars(arguments).items()}, "seconds": seconds}))


if __name__ == "__main__":
    main()
