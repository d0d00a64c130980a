"""A small run on disk."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from analysis_example import write_run

from picolm.records.rundir import RunDirectory

sys.path.append(str(Path(__file__).parents[1] / "records"))  # for legacy_example.py


@pytest.fixture(scope="session")
def run_as_written(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run, written once: each test gets a copy."""
    return write_run(RunDirectory(tmp_path_factory.mktemp("runs") / "small"))


@pytest.fixture
def run(run_as_written: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A run of three steps of a two-layer model, with learning dynamics."""
    return RunDirectory(shutil.copytree(run_as_written.path, tmp_path / "runs" / "small"))
