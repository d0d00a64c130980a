"""The examples that draw a figure of the paper run to their end, on fewer updates than their pages quote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("example", "updates", "facts"),
    [
        ("maml_figure_2", 24, {"held_out_loss", "episode_tokens"}),
        ("relora_figure_3", 64, {"held_out_loss", "minimal_pairs"}),
    ],
)
def test_a_figure_of_the_paper_is_drawn(example: str, updates: int, facts: set[str], tmp_path: Path):
    command = [sys.executable, str(TOP / "examples" / example / "run.py"), "--out", str(tmp_path / "out")]
    result = subprocess.run(
        [*command, "--set", f"training.max_steps={updates}"], capture_output=True, text=True, cwd=tmp_path, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {"plain", "published", "specified"} == summary.keys()
    for arm in summary.values():
        assert arm["steps"] == updates and facts <= arm.keys()
    figure = (tmp_path / "out" / "figure.svg").read_text()
    assert figure.startswith("<svg") and figure.count("<path") > 20
