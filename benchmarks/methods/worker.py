"""One contender of `compare.py` in a process of its own: sets itself up, then does a turn for every line it reads.

A turn of `--task steps` is some whole updates; of `--task inner` one inner loop, of `--task episode` one whole episode.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from picolm.records.rundir import RunDirectory
from picolm.train.config import parse_config
from picolm.train.loop import clip_gradients, update
from picolm.train.methods.contract import StepBatch, draws_for
from picolm.train.methods.maml_episode import InnerLoop, run_episode
from picolm.train.methods.maml_head import adapt, with_zero_output
from picolm.train.methods.maml_passes import FeatureReader
from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_episodes import Episode, EpisodeSettings, draw_episode
from picolm.train.run import Parts, step_batch
from picolm.train.setup import build_training

FIRST_STEP = 40
"""Late enough for a full buffer."""


class ZipfTokens:
    """A `TokenSource` of rows whose tokens are drawn in proportion to one over their number plus ten."""

    def __init__(self, *, vocabulary: int, row_length: int) -> None:
        self.name, self.fingerprint, self.manifest, self.tokenizer_file = "zipf", "0" * 64, {}, None
        self.rows, self.row_length = 10**6, row_length
        share_V = 1 / (10 + numpy.arange(vocabulary - 1))  # the last one is the mask
        self._cumulative_V = numpy.cumsum(share_V / share_V.sum())

    def split(self, name: str) -> ZipfTokens:
        return self

    def read(self, rows: numpy.ndarray) -> numpy.ndarray:
        uniform_BT = numpy.random.default_rng(int(rows[0])).random((len(rows), self.row_length))
        return numpy.minimum(numpy.searchsorted(self._cumulative_V, uniform_BT), len(self._cumulative_V) - 1)


def build(cell: dict[str, Any], method: dict[str, Any], folder: Path) -> Parts:
    options = {"vocabulary": cell["vocabulary"], "row_length": cell["length"] + 1}
    content: dict[str, Any] = {
        "data": {
            "dataset": {"name": f"{__file__}:ZipfTokens", "options": options},
            "dataloader": {"batch_size": cell["batch"]},
        },
        "model": {
            "d_model": cell["width"],
            "n_layers": cell["layers"],
            "vocab_size": cell["vocabulary"],
            "max_seq_len": cell["length"],
            "activation_hidden_dim": 4 * cell["width"],
        },
        "training": {
            "max_steps": 100_000,
            "method": method,
            "optimization": {"gradient_accumulation_steps": 1, "clip_norm": 1.0},
            "fabric": {"precision": cell["precision"], "accelerator": cell["device"]},
        },
        "checkpointing": {"learning_dynamics": {"enabled": False}},
        "evaluation": {"metrics": None},
    }
    return build_training(parse_config(content, "benchmark", default_name="benchmark"), RunDirectory(folder / "run")).parts


def whole_steps(parts: Parts, count: int) -> Callable[[], None]:
    """Updates, from reading the rows to the optimiser."""
    position = [FIRST_STEP]

    def turn() -> None:
        for _ in range(count):
            step = position[0] = position[0] + 1
            batch = step_batch(parts, step, parts.loader.batch_of_step(step))
            parts.method.forward_backward(parts.fabric_model, batch, parts.fabric)
            clip_gradients(parts.trained, 1.0)
            update(parts, step, applied=True)

    return turn


def an_episode(parts: Parts, cell: dict[str, Any]) -> Episode:
    """32 ways, 4 support and 4 query examples, whole rows."""
    mask_token = cell["vocabulary"] - 1
    buffer = RollingBuffer(sequences=2048, sequence_tokens=None, vocab_size=cell["vocabulary"], mask_token=mask_token)
    buffer.advance_to(FIRST_STEP, lambda step: parts.loader.batch_of_step(step).numpy())
    settings = EpisodeSettings(
        ways=32, support=4, query=4, mask_token=mask_token, frequency_band=(0.0, 0.02), frequency_exponent=0.3
    )
    episode = draw_episode(buffer, settings, draws_for(0, "benchmark"))
    assert episode is not None
    assert episode.ways == 32
    return episode


def reader_of(parts: Parts, batch: StepBatch) -> FeatureReader:
    tokens = batch.micro_batches[0][:, 1:].numel()
    return FeatureReader(parts.fabric_model, parts.fabric, at_mask=False, scaled=True, tokens_per_pass=tokens)


def inner_loop(parts: Parts, cell: dict[str, Any], *, repeated: bool) -> Callable[[], None]:
    """Ten steps of a linear head, its features computed once or for each step."""
    episode, batch = an_episode(parts, cell), step_batch(parts, 0, parts.loader.batch_of_step(0))
    reader, labels_S = reader_of(parts, batch), torch.from_numpy(episode.support.labels_S).to(parts.fabric.device)
    head = with_zero_output((), 32, torch.zeros(1, cell["width"], device=parts.fabric.device))

    def read() -> torch.Tensor:
        return reader.read(episode.support, 0)

    def turn() -> None:
        features_SD = None if repeated else read()
        source = read if features_SD is None else lambda: features_SD
        adapt(head, source, labels_S, steps=10, learning_rate=1.0, exact=False)

    return turn


def whole_episode(parts: Parts, cell: dict[str, Any], *, repeated: bool) -> Callable[[], None]:
    """Inner loop, query set and the gradient of the whole model."""
    episode, batch = an_episode(parts, cell), step_batch(parts, 0, parts.loader.batch_of_step(0))
    reader = reader_of(parts, batch)

    def turn() -> None:
        run_episode(
            episode,
            reader,
            lambda features_SD, labels_S, ways: with_zero_output((), ways, features_SD),
            InnerLoop(10, 1.0, repeated_forwards=repeated),
            sizes=(128, 128),
            weight=1.0,
            shared_head=(),
            columns_N=None,
        )
        parts.optimizer.zero_grad(set_to_none=True)

    return turn


def peak_bytes(parts: Parts) -> int:
    """Largest memory so far: of the device if it is a GPU, else of the process."""
    if parts.fabric.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", type=json.loads)
    parser.add_argument("cell", type=json.loads)
    given = parser.parse_args()
    contender, cell = given.contender, given.cell
    torch.set_num_threads(cell["threads"])
    with tempfile.TemporaryDirectory() as folder:
        parts = build(cell, contender["method"], Path(folder))
        turn = {
            "steps": lambda: whole_steps(parts, cell["steps"]),
            "inner": lambda: inner_loop(parts, cell, repeated=contender.get("repeated", False)),
            "episode": lambda: whole_episode(parts, cell, repeated=contender.get("repeated", False)),
        }[contender["task"]]()
        turn()
        print("ready", flush=True)
        for _ in sys.stdin:
            begun, busy = time.perf_counter(), time.process_time()
            turn()
            if parts.fabric.device.type == "cuda":
                torch.cuda.synchronize()
            print(time.perf_counter() - begun, time.process_time() - busy, flush=True)
        print(peak_bytes(parts) / 2**20, flush=True)


if __name__ == "__main__":
    main()
