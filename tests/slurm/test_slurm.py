"""Training under a real Slurm of two virtual nodes: the launch, the signal before the time limit, a mismatch of settings."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from picolm.train.stop import STOPPED_EXIT_CODE

from ..train.conftest import make_config, tiny_data  # noqa: F401 - fixtures
from ..train.test_processes import losses, write_config
from .cluster import cluster, missing

PICO = (sys.executable, "-m", "picolm.cli.main")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        # the virtual nodes have no addresses of their own
        yield {**environment, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}


def srun(environment: dict[str, str], *arguments: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["srun", *arguments], env=environment, capture_output=True, text=True, timeout=seconds)


def test_two_nodes_give_the_losses_of_one_process(slurm, make_config, tiny_data: Path, tmp_path: Path):  # noqa: F811
    from picolm.train.train import run_training

    from ..train.recording import Recording

    one = run_training(make_config("one"), Recording()).run
    config = write_config(tmp_path, tiny_data, "two", training={"fabric": {"num_nodes": 2}})
    result = srun(slurm, *TWO_NODES, *PICO, "train", str(config))
    assert result.returncode == 0, result.stderr[-3000:]
    assert losses(tmp_path / "runs" / "two") == pytest.approx(losses(one), rel=1e-5)
    assert (tmp_path / "runs" / "two" / "checkpoints" / "step_8" / "training_state" / "random_rank1.safetensors").is_file()


def test_settings_that_do_not_fit_the_allocation_are_one_sentence(slurm, tiny_data: Path, tmp_path: Path):  # noqa: F811
    config = write_config(tmp_path, tiny_data, "two", training={"fabric": {"num_nodes": 4}})
    result = srun(slurm, *TWO_NODES, *PICO, "train", str(config))
    assert result.returncode != 0
    assert "Traceback" not in result.stderr, result.stderr[-3000:]
    assert "training.fabric.num_nodes" in result.stderr


def test_the_signal_before_the_time_limit_saves_and_the_same_job_continues(slurm, tiny_data: Path, tmp_path: Path):  # noqa: F811
    config = write_config(tmp_path, tiny_data, "long", training={"max_steps": 3000}, checkpointing={"steps": [0]})
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nexec srun {' '.join(PICO)} train {config}\n")
    submitted = subprocess.run(
        ["sbatch", "--parsable", f"--output={tmp_path}/job.log", str(script)],
        env=slurm,
        capture_output=True,
        text=True,
        check=True,
    )
    job = submitted.stdout.strip()
    log = tmp_path / "runs" / "long" / "logs" / "train.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, 120, tmp_path / "job.log")
    subprocess.run(["scancel", "--signal=USR1", job], env=slurm, check=True)
    wait_for(lambda: not queued(slurm, job), 60, tmp_path / "job.log")
    steps = [int(path.name.removeprefix("step_")) for path in (tmp_path / "runs" / "long" / "checkpoints").iterdir()]
    assert 0 < max(steps) < 3000
    saved = json.loads((tmp_path / "runs" / "long" / "checkpoints" / f"step_{max(steps)}" / "manifest.json").read_text())
    assert saved["step"] == max(steps)
    again = srun(slurm, *PICO, "train", str(config))
    assert again.returncode == 0, again.stderr[-3000:]
    assert f"from step {max(steps)}" in again.stderr


def test_a_stopped_job_ends_with_its_own_exit_code(slurm, tiny_data: Path, tmp_path: Path):  # noqa: F811
    config = write_config(tmp_path, tiny_data, "stopped", training={"max_steps": 3000}, checkpointing={"steps": [0]})
    process = subprocess.Popen(["srun", *PICO, "train", str(config)], env=slurm, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "stopped" / "logs" / "train.jsonl"
    wait_for(lambda: log.is_file() and log.stat().st_size > 0, 120, None)
    job = subprocess.run(["squeue", "-h", "-o", "%i"], env=slurm, capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["scancel", "--signal=USR1", job], env=slurm, check=True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == STOPPED_EXIT_CODE, errors[-2000:]


def queued(environment: dict[str, str], job: str) -> bool:
    listed = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], env=environment, capture_output=True, text=True)
    return bool(listed.stdout.strip())


def wait_for(condition, seconds: float, log: Path | None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            said = log.read_text()[-2000:] if log is not None and log.is_file() else ""
            raise AssertionError(f"nothing happened in {seconds} s: {said}")
        time.sleep(0.2)
