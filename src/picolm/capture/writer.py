"""Writes a filled recorder into a checkpoint folder: tensors, the batch they come from, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from safetensors.torch import save_file
from torch import Tensor

from picolm.capture.recorder import LANGUAGE_MODEL, Recorder
from picolm.records import durable
from picolm.records.rundir import CheckpointFolder

GRADIENT_MEANING = "mean over the tokens of the global batch, before clipping"
OTHER_GRADIENT_MEANING = "of the objective, over the whole step, as the optimiser received it, before clipping"
STEP_PASS = "activations are those of the pass that made the gradient"
OWN_PASS = "activations, and exact circuit gradients, are those of a language-model pass of their own over the same rows"
MOMENT_MEANING = "of the optimiser after the update, as it made it"


@dataclass(frozen=True)
class SnapshotBatch:
    """The sequences a snapshot was taken on: row numbers in their data and token identifiers (sequences, T + 1)."""

    rows: numpy.ndarray
    tokens: numpy.ndarray
    fingerprint: str


def write_snapshot(
    folder: Path,
    recorder: Recorder,
    *,
    split: str,
    step: int,
    training_tokens: int | None,
    batch: SnapshotBatch,
    decode: Callable[[list[int]], str] | None,
    applied: bool,
) -> None:
    """Write one split of a snapshot into the checkpoint folder `folder` (not yet sealed)."""
    checkpoint = CheckpointFolder(folder)
    checkpoint.learning_dynamics.mkdir(exist_ok=True)
    tensors = recorder.tensors()
    for data_type, named in tensors.items():
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, checkpoint.dynamics_tensors(split, data_type))
    write_batch(checkpoint.dynamics_batch(split), batch, decode)
    info = snapshot_info(
        recorder, split=split, step=step, training_tokens=training_tokens, batch_shape=batch.tokens.shape, applied=applied
    )
    durable.write_json(checkpoint.dynamics_info(split), {**info, "data_fingerprint": batch.fingerprint})


def snapshot_info(
    recorder: Recorder, *, split: str, step: int, training_tokens: int | None, batch_shape: tuple[int, ...], applied: bool
) -> dict[str, Any]:
    """What the tensors of a snapshot mean. `batch_shape`: sequences, and tokens of each, one more than it predicts."""
    sequences, row_length = batch_shape
    info: dict[str, Any] = {
        "split": split,
        "step": step,
        "tokens": training_tokens,
        "applied": applied,
        "objective": recorder.objective,
        "gradient": GRADIENT_MEANING if recorder.objective == LANGUAGE_MODEL else OTHER_GRADIENT_MEANING,
        "pass": OWN_PASS if recorder.own_pass else STEP_PASS,
        "positions": list(recorder.plan.positions),
        "sequences": sequences,
        "samples": sequences * len(recorder.plan.positions),
        "batch_tokens": sequences * (row_length - 1),
        "dtypes": {data_type: _dtypes(named) for data_type, named in recorder.tensors().items()},
    }
    if recorder.update_ranks:
        info["update_ranks"] = recorder.update_ranks
    if recorder.momentum:
        info["moments"] = MOMENT_MEANING
    if recorder.micro_batch_tokens:
        info["micro_batch_tokens"] = recorder.micro_batch_tokens
        info["micro_batch_squared_norms"] = recorder.micro_batch_squared_norms
    return info


def write_batch(path: Path, batch: SnapshotBatch, decode: Callable[[list[int]], str] | None) -> None:
    """One row per sequence: `row` in the data, `input_ids`, and `text` where a tokenizer is at hand."""
    import pyarrow
    import pyarrow.parquet

    identifiers = [tokens.tolist() for tokens in batch.tokens]
    texts = [decode(tokens) for tokens in identifiers] if decode is not None else [""] * len(identifiers)
    table = pyarrow.table(
        {
            "row": pyarrow.array(batch.rows, pyarrow.int64()),
            "input_ids": pyarrow.array(identifiers, pyarrow.list_(pyarrow.int32())),
            "text": pyarrow.array(texts, pyarrow.string()),
        }
    )
    pyarrow.parquet.write_table(table, path)


def _dtypes(named: dict[str, Tensor]) -> list[str]:
    return sorted({str(tensor.dtype).removeprefix("torch.") for tensor in named.values()})
