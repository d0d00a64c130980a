"""What happens to whole processes: killed between steps, too little grace, asleep while another one takes over."""

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

from picolm.train.config import parse_config
from picolm.train.train import run_training

from ..train.recording import Recording, file_hashes
from .conftest import short_content

ROOT = Path(__file__).parents[2]
STEPS = (0, 1, 2, 4)


def start(content: dict[str, Any], folder: Path, die_at: int = -1, step_seconds: float = 0.0) -> subprocess.Popen[str]:
    path = folder / "content.json"
    path.write_text(json.dumps(content))
    command = [sys.executable, "-m", "tests.crash.trainer", str(path), str(die_at), str(step_seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def uninterrupted(content: dict[str, Any], folder: Path) -> dict[int, dict[str, str]]:
    """In a process of its own, so that it has the thread count of the others."""
    whole = {**content, "checkpointing": {**content["checkpointing"], "run_name": "whole"}}
    process = start(whole, folder)
    assert process.wait(timeout=120) == 0
    return {step: file_hashes(folder / "runs" / "whole", step) for step in STEPS}


def wait_for(path: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_process_killed_at_any_update_continues_bit_for_bit_and_says_what_it_makes_again(tiny_data: Path, tmp_path: Path):
    content = short_content(tiny_data, tmp_path / "runs")
    expected = uninterrupted(content, tmp_path)
    said = []
    for step in (0, 1, 3):
        process = start(content, tmp_path, die_at=step)
        assert process.wait(timeout=120) == -signal.SIGKILL
        assert process.stderr is not None
        said.append(process.stderr.read())
    last = start(content, tmp_path)
    _, sentences = last.communicate(timeout=120)
    assert last.returncode == 0
    assert "not saved before the process ended" in sentences
    assert {step: file_hashes(tmp_path / "runs" / "tiny", step) for step in STEPS} == expected


def test_too_little_grace_falls_back_to_the_newest_checkpoint(tiny_data: Path, tmp_path: Path):
    content = short_content(tiny_data, tmp_path / "runs")
    expected = uninterrupted(content, tmp_path)
    process = start(content, tmp_path, step_seconds=1.0)
    wait_for(tmp_path / "runs" / "tiny" / "checkpoints" / "step_2" / "manifest.json")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    again = start(content, tmp_path)
    _, sentences = again.communicate(timeout=120)
    assert again.returncode == 0
    assert "from step 2" in sentences
    assert {step: file_hashes(tmp_path / "runs" / "tiny", step) for step in STEPS} == expected


def test_a_process_that_slept_past_its_lease_may_not_write_any_more(tiny_data: Path, tmp_path: Path):
    content = short_content(tiny_data, tmp_path / "runs")
    run = tmp_path / "runs" / "tiny"
    sleeper = start(content, tmp_path, step_seconds=0.5)
    try:
        wait_for(run / "checkpoints" / "step_1" / "manifest.json")
        sleeper.send_signal(signal.SIGSTOP)
        os.utime(run / "run.lock", (time.time() + 600, time.time() + 600))  # fresh, however long the next process takes to start
        refused = start(content, tmp_path)
        _, sentences = refused.communicate(timeout=120)
        assert refused.returncode == 2
        assert "is writing this run" in sentences
        os.utime(run / "run.lock", (0, 0))
        heir = start(content, tmp_path)
        _, sentences = heir.communicate(timeout=120)
        assert heir.returncode == 0, sentences
        before = {step: file_hashes(run, step) for step in STEPS}
        sleeper.send_signal(signal.SIGCONT)
        _, sentences = sleeper.communicate(timeout=120)
        assert sleeper.returncode == 2
        assert "has taken over this run" in sentences or "was removed while" in sentences
        assert {step: file_hashes(run, step) for step in STEPS} == before
    finally:
        sleeper.kill()


def test_memory_that_is_too_small_ends_the_run_with_advice_and_no_half_state(tiny_data: Path, tmp_path: Path):
    import torch

    from picolm.base.errors import PicoError
    from picolm.train.methods.plain import Plain

    config = parse_config(short_content(tiny_data, tmp_path / "runs"), "tiny.yaml", default_name="tiny")
    original, calls = Plain.forward_backward, []

    def short_of_memory(self: Plain, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plain, "forward_backward", short_of_memory)
        with pytest.raises(PicoError, match="out of memory") as refusal:
            run_training(config, Recording())
    assert "gradient_accumulation_steps=4" in refusal.value.hint
    assert not list((tmp_path / "runs" / "tiny" / "checkpoints").glob(".*"))
    assert run_training(config, Recording()).complete
