"""A disk that is full, turns read-only or goes away: the run ends with a sentence, and continues exactly once it is mended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.records.durable import TEMPORARY_MARK
from picolm.records.manifest import find_damage, read_manifest
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig, parse_config
from picolm.train.train import run_training

from ..train.recording import Recording, file_hashes
from .conftest import short_content

STEPS = (0, 1, 2, 4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 1 MiB of room. The run's files take about 900 KB."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def config_in(data: Path, runs: Path) -> RunConfig[Any]:
    return parse_config(short_content(data, runs), "tiny.yaml", default_name="tiny")


def check_what_is_sealed(run: Path) -> list[int]:
    directory = RunDirectory(run)
    for step in directory.steps():
        assert find_damage(directory.checkpoint(step), read_manifest(directory.checkpoint(step))) == []
    return directory.steps()


@pytest.fixture
def expected(tiny_data: Path, tmp_path: Path) -> dict[int, dict[str, str]]:
    """Step -> hashes of the uninterrupted run."""
    run = run_training(config_in(tiny_data, tmp_path / "whole"), Recording()).run
    return {step: file_hashes(run, step) for step in STEPS}


@pytest.mark.parametrize("room", [48, 160, 320, 480, 640, 736])
def test_a_full_disk_costs_nothing_but_the_checkpoint_that_did_not_fit(
    small_disk: Path, tiny_data: Path, expected: dict[int, dict[str, str]], room: int
):
    remount(small_disk, f"size={room}k")
    config = config_in(tiny_data, small_disk)
    with pytest.raises(PicoError, match="No space left"):
        run_training(config, Recording())
    run = small_disk / "tiny"
    check_what_is_sealed(run)
    assert not list((run / "checkpoints").glob(f".*{TEMPORARY_MARK}*"))
    remount(small_disk, "size=8m")
    run_training(config, Recording())
    assert {step: file_hashes(run, step) for step in STEPS} == expected


class MountBreaks(Recording):
    """Breaks the disk once two updates are made."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        super().__init__()
        self.folder, self.command = folder, command

    def advance(self, step: int) -> None:
        if step == 2:
            self._break()

    def _break(self) -> None:
        """A mount is busy while the writer's thread holds a file open, so this may take a few tries."""
        deadline = time.monotonic() + 30
        while subprocess.run([*self.command, str(self.folder)], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < deadline, f"{self.command} does not succeed"
            time.sleep(0.01)


def test_a_disk_that_turns_read_only_ends_the_run_with_a_sentence(
    small_disk: Path, tiny_data: Path, expected: dict[int, dict[str, str]]
):
    remount(small_disk, "size=8m")
    config = config_in(tiny_data, small_disk)
    with pytest.raises(PicoError, match="Read-only file system"):
        run_training(config, MountBreaks(small_disk, ["mount", "-o", "remount,ro"]))
    remount(small_disk, "rw")
    check_what_is_sealed(small_disk / "tiny")
    (small_disk / "tiny" / "run.lock").unlink()  # this process lives on and holds it; after a real end nobody would
    run_training(config, Recording())
    assert {step: file_hashes(small_disk / "tiny", step) for step in STEPS} == expected


def test_a_disk_that_goes_away_ends_the_run_with_a_sentence(small_disk: Path, tiny_data: Path):
    remount(small_disk, "size=8m")
    with pytest.raises(PicoError, match=r"can no longer be read|was removed|could not be written"):
        run_training(config_in(tiny_data, small_disk), MountBreaks(small_disk, ["umount", "-l"]))
    assert not (small_disk / "tiny" / "run.json").exists()


def test_one_flipped_bit_in_any_file_is_refused_by_name(tiny_data: Path, tmp_path: Path):
    config = config_in(tiny_data, tmp_path)
    whole = run_training(config, Recording()).run
    spare = tmp_path / "spare"
    shutil.copytree(whole / "checkpoints" / "step_4", spare)
    newest = whole / "checkpoints" / "step_4"
    for path in sorted(path for path in spare.rglob("*") if path.is_file()):
        name = path.relative_to(spare)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(bytes(content))
        with pytest.raises(PicoError) as refusal:
            run_training(config, Recording())
        assert name.name in refusal.value.message or name.name == "manifest.json", refusal.value
        assert "step_4" in refusal.value.message
        shutil.copyfile(path, newest / name)
    run_training(config, Recording())
