"""A save is killed, or has a call fail, at every file system call that touches the run folder; the run continues exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picolm.testing.tiny import merged

from .conftest import short_content


def attack(data: Path, folder: Path, mode: str, **changes: Any) -> dict[str, Any]:
    content, report = folder / "content.json", folder / "report.json"
    content.write_text(json.dumps(merged(short_content(data, folder / "runs"), changes)))
    command = [sys.executable, "-m", "tests.crash.stage", str(content), str(report), mode]
    result = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert report.is_file(), result.stderr[-3000:]
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.timeout(1800)
def test_a_kill_at_any_file_system_call_of_a_save_loses_nothing(traceable: None, tiny_data: Path, tmp_path: Path):
    """With retention, so that a kill while an old training state is removed is among them."""
    report = attack(tiny_data, tmp_path, "kill", checkpointing={"keep_training_states": 1})
    assert report["problems"] == []
    assert report["calls"] > 100
    assert report["passed_over"] < report["calls"] / 50
    assert report["continued"] > 1


@pytest.mark.timeout(1800)
def test_an_error_in_any_file_system_call_of_a_save_loses_nothing(traceable: None, tiny_data: Path, tmp_path: Path):
    report = attack(tiny_data, tmp_path, "error")
    assert report["problems"] == []
    assert report["calls"] > 30
