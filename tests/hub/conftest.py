"""A Hub of our own, the real client pointed at it, and run folders that need no training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from picolm.hub.client import connect
from picolm.hub.outbox import Destination, Outbox
from picolm.hub.patience import Patience
from picolm.hub.sync import Uploader
from picolm.records.evaluation import Score, write_scores
from picolm.records.manifest import Manifest, manifest_hash, sealed_folder
from picolm.records.rundir import RunDirectory
from picolm.records.trainlog import append_row
from tests.hub.double import HubDouble, hub_double
from tests.train.conftest import make_config, tiny_data  # noqa: F401 - fixtures of a training in a second

REPO = "somebody/suite"
TOKEN = "hf_" + "x" * 34


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with hub_double() as server:
        yield server


@pytest.fixture
def online(hub: HubDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubDouble:
    """The client of this process talks to the double, and to nothing else."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture
def api(online: HubDouble) -> Any:
    return connect(endpoint=online.endpoint, answer_seconds=5)


def make_run(path: Path, steps: tuple[int, ...] = (0, 10, 20), *, dynamics: bool = True, rows: int = 1) -> RunDirectory:
    """A run folder with sealed checkpoints of a few bytes each."""
    run = RunDirectory(path)
    run.write_identity(
        {
            "format": "picolm.run/1",
            "name": run.name,
            "data": {"name": "corpus", "fingerprint": "f" * 64, "tokenizer_sha256": "a" * 64},
            "model": {"type": "pico_decoder", "parameters": 12},
            "config_hash": "c" * 64,
            "seeds": {"init": 1, "data": 2},
            "code": {"version": "0.1.0", "git_commit": None},
        }
    )
    run.config_file.write_text("data:\n  dataset: {name: /home/alice/corpora/books}\nmodel: {d_model: 2}\n")
    for number in range(1, rows + 1):
        append_row(run.log_file, {"step": number * 5, "tokens": number * 500, "loss": 5.0 / number})
    parent = None
    for step in steps:
        parent = add_checkpoint(run, step, parent, dynamics=dynamics)
        write_scores(run, step, step * 100, [Score("perplexity", "perplexity", 100.0 - step)], {"perplexity": {"window": 16}})
    return run


def add_checkpoint(run: RunDirectory, step: int, parent: str | None, *, dynamics: bool = True) -> str:
    """Seal one more step; the hash of its manifest."""
    draw = numpy.random.default_rng(step)
    with sealed_folder(run.checkpoint(step), Manifest(step, step * 100, parent, "c" * 64)) as folder:
        save_file({"w": draw.standard_normal((2, 6)).astype("float32")}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "tokenizer.json").write_text("{}")
        state = folder / "training_state"
        state.mkdir()
        save_file({"m": draw.standard_normal(12).astype("float32")}, state / "optimizer.safetensors")
        (state / "state.json").write_text(json.dumps({"step": step}))
        if dynamics:
            captured = folder / "learning_dynamics"
            captured.mkdir()
            save_file({"layers.0.attention.v_proj": draw.standard_normal((3, 2))}, captured / "val_activations.safetensors")
            (captured / "val.json").write_text(json.dumps({"split": "val", "step": step}))
            table = pyarrow.table({"input_ids": [[1, 2, 3]], "text": ["a cat sleeps"]})
            pyarrow.parquet.write_table(table, captured / "val_batch.parquet")
    return manifest_hash(run.checkpoint(step))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return make_run(tmp_path_factory.mktemp("template") / "tiny")


@pytest.fixture
def run(template: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A run of three checkpoints; each test has its own copy."""
    return RunDirectory(shutil.copytree(template.path, tmp_path / "runs" / "tiny"))


SyncRun = Callable[..., int]


@pytest.fixture
def sync(api: Any) -> SyncRun:
    """Publish what waits, without ever sleeping; the seconds it would have slept are in `sync.slept`."""

    def publish(run: RunDirectory, *, attempts: int | None = 20, onto: str | None = None, **destination: Any) -> int:
        outbox = Outbox(run)
        if outbox.destination() is None or destination:
            outbox.address(Destination(**{"repo_id": REPO, **destination}))
        patience = Patience(attempts=attempts, sleep=publish.slept.append)  # type: ignore[attr-defined]
        uploader = Uploader(outbox, api, patience, publish.said.append, onto)  # type: ignore[attr-defined]
        count = uploader.publish_waiting()
        uploader.publish_results()
        uploader.publish_page()
        uploader.join_collection()
        return count

    publish.slept, publish.said = [], []  # type: ignore[attr-defined]
    return publish


@pytest.fixture(autouse=True)
def impatient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own retries do not sleep."""
    from huggingface_hub.utils import _http

    class Clock:
        sleep = staticmethod(lambda seconds: None)

        def __getattr__(self, name: str) -> Any:
            import time

            return getattr(time, name)

    monkeypatch.setattr(_http, "time", Clock())
