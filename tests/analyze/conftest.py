"""A small run on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from analysis_example import write_run

from picolm.records.rundir import RunDirectory

sys.path.append(str(Path(__file__).parents[1] / "records"))  # for legacy_example.py


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of three steps of a two-layer model, with learning dynamics."""
    return write_run(RunDirectory(tmp_path / "runs" / "small"))
