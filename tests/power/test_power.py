"""The power goes: what was announced as sealed is on the disk and whole, what was under way is gone or whole, the run continues.

The run lies on an ext4 image mounted through a loop device. A copy of the image file, made without a sync, holds what had
reached the disk and nothing that was only in memory; mounting the copy replays its journal, as after a loss of power.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from picolm.records.manifest import find_damage, read_manifest
from picolm.records.rundir import RunDirectory
from picolm.testing.tiny import merged
from picolm.train.config import parse_config
from picolm.train.run import Silence
from picolm.train.train import run_training

from ..crash.conftest import short_content
from ..crash.stage import hashes
from ..train.conftest import tiny_data  # noqa: F401 - a fixture

MEGABYTES = 48
STEPS = (0, 1, 2, 4)
MOMENTS_BETWEEN = 12
"""Copies made while a save is under way, at seeded random moments."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 image."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("mounting a disk image needs root on Linux, and mkfs.ext4")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    probe = tmp_path / "probe"
    try:
        with mounted(image, probe):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"nothing can be mounted here: {error.stderr.decode().strip()}")
    yield image


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def test_nothing_announced_is_lost_and_the_run_continues_exactly(disk: Path, tiny_data: Path, tmp_path: Path):  # noqa: F811
    content = short_content(tiny_data, tmp_path / "elsewhere")
    expected = hashes(run_training(parse_config(content, "tiny.yaml", default_name="tiny"), Silence()).run)
    place = tmp_path / "place"
    content = merged(content, {"checkpointing": {"runs_dir": str(place / "runs")}})
    copies = train_and_copy(disk, place, content, tmp_path)
    assert [announced for _, announced in copies if announced] != []
    seen = set()
    for copy, announced in copies:
        with mounted(copy, place):
            run = RunDirectory(place / "runs" / "tiny")
            assert announced <= set(run.steps()), f"{copy.name}: {announced} were announced, {run.steps()} are there"
            for step in run.steps():
                assert find_damage(run.checkpoint(step), read_manifest(run.checkpoint(step))) == []
            if tuple(run.steps()) not in seen:
                seen.add(tuple(run.steps()))
                run_training(parse_config(content, "tiny.yaml", default_name="tiny"), Silence())
                assert hashes(run.path) == expected, copy.name
    assert len(seen) >= len(STEPS)


def train_and_copy(disk: Path, place: Path, content: dict[str, Any], folder: Path) -> list[tuple[Path, set[int]]]:
    """Copies of the disk as the power would have left it, each with the steps that had been announced as sealed."""
    draw = random.Random(0)
    copies: list[tuple[Path, set[int]]] = []
    announced: set[int] = set()
    (folder / "content.json").write_text(json.dumps(content))

    def copy(name: str) -> None:
        target = folder / f"{name}.img"
        subprocess.run(["cp", "--sparse=always", str(disk), str(target)], check=True)
        copies.append((target, set(announced)))

    with mounted(disk, place):
        command = [sys.executable, "-m", "tests.power.trainer", str(folder / "content.json")]
        trainer = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert trainer.stdin is not None
        assert trainer.stdout is not None
        for line in trainer.stdout:
            announced.add(int(line.split()[1]))
            copy(f"sealed-{max(announced)}")
            trainer.stdin.write("go\n")
            trainer.stdin.flush()
            for number in range(MOMENTS_BETWEEN // len(STEPS)):  # the next save is under way
                time.sleep(draw.uniform(0, 0.05))
                trainer.send_signal(signal.SIGSTOP)
                copy(f"after-{max(announced)}-{number}")
                trainer.send_signal(signal.SIGCONT)
        assert trainer.wait() == 0
        assert announced == set(STEPS)
    return copies
