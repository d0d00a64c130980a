"""Two processes on the CPU are one run: same losses, same rows, same files. Through the command line, as a person starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from picolm.records import trainlog
from picolm.testing.tiny import merged, training_content
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording

PICO = [sys.executable, "-m", "picolm.cli.main"]


def write_config(folder: Path, data: Path, name: str, **changes: Any) -> Path:
    content = merged(training_content(data, folder / "runs", name), changes)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def train(config: Path, *settings: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*(launcher or (sys.executable,)), "-m", "picolm.cli.main", "train", str(config)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in trainlog.read_rows(run / "logs" / "train.jsonl")]


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-12), ("32-true", 1e-5)])
def test_two_processes_give_the_losses_and_the_files_of_one(
    make_config: ConfigMaker, tiny_data: Path, tmp_path: Path, precision: str, tolerance: float
):
    training = {"max_steps": 50, "fabric": {"precision": precision}}
    one = run_training(make_config("one", training=training), Recording()).run
    config = write_config(
        tmp_path, tiny_data, "two", training=merged(training_content(tiny_data, tmp_path)["training"], training)
    )
    result = train(config, "training.fabric.num_devices=2")
    assert result.returncode == 0, result.stderr
    two = tmp_path / "runs" / "two"
    assert losses(two) == pytest.approx(losses(one), rel=tolerance)
    for step in (0, 5, 50):
        folders = [run / "checkpoints" / f"step_{step}" for run in (one, two)]
        names = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in folders]
        assert names[1] - names[0] == {"training_state/random_rank1.safetensors"}
        assert names[0] <= names[1]
        for split in ("train", "val"):
            for kind in ("activations", "gradients"):
                first, second = (load_file(folder / f"learning_dynamics/{split}_{kind}.safetensors") for folder in folders)
                assert all(first[name].shape == second[name].shape for name in first)
                if step == 0:
                    assert all((first[name] - second[name]).norm() <= 1e-5 * first[name].norm() for name in first)


def test_torchrun_starts_the_same_run(make_config: ConfigMaker, tiny_data: Path, tmp_path: Path):
    one = run_training(make_config("one"), Recording()).run
    config = write_config(tmp_path, tiny_data, "two")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517")
    result = train(config, "training.fabric.num_devices=2", launcher=launcher)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path / "runs" / "two") == pytest.approx(losses(one), rel=1e-5)


def test_a_run_continues_on_another_number_of_processes_with_the_same_rows(
    make_config: ConfigMaker, tiny_data: Path, tmp_path: Path
):
    whole = run_training(make_config("whole"), Recording()).run
    stopped = run_training(make_config("parts"), Recording(stop_at=3))
    config = write_config(tmp_path, tiny_data, "parts")
    result = train(config, "training.fabric.num_devices=2")
    assert result.returncode == 0, result.stderr
    assert "no longer bit-exact" in result.stderr
    assert losses(stopped.run) == pytest.approx(losses(whole), rel=1e-5)
    history = json.loads((stopped.run / "run.json").read_text())["history"]
    assert history[-1]["changes"]["training.fabric.num_devices"] == [1, 2]


def test_killing_one_process_ends_the_run_and_the_same_command_resumes(tiny_data: Path, tmp_path: Path):
    config = write_config(tmp_path, tiny_data, "two", training={"max_steps": 800}, checkpointing={"steps": [0, 1, 2]})
    command = [*PICO, "train", str(config), "--set", "training.fabric.num_devices=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        wait_for(tmp_path / "runs" / "two" / "checkpoints" / "step_2" / "manifest.json")
        child = children(running.pid)[0]
        os.kill(child, signal.SIGKILL)
        begun = time.monotonic()
        assert running.wait(timeout=60) != 0
        assert time.monotonic() - begun < 60
    finally:
        running.kill()
    result = train(
        config,
        "training.fabric.num_devices=2",
        "checkpointing.steps=[0,1,2,4]",
        "training.max_steps=800",
        "monitoring.logging.log_every_n_steps=1000",
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "from step 2" in result.stderr


def wait_for(path: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def children(process: int) -> list[int]:
    """Process numbers of the training processes that `process` started."""
    output = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process)], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in output.splitlines() if "train" in line]
