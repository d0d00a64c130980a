"""A finished run that reports are made of; built once, never changed by a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_example import build_run

from picolm.records.rundir import RunDirectory


@pytest.fixture(scope="session")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return build_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="session")
def example_page(example_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> str:
    from picolm.report.page import write_report

    return write_report([example_run], tmp_path_factory.mktemp("page") / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def bare_run(tmp_path: Path) -> RunDirectory:
    """A run folder with nothing but `run.json`."""
    run = RunDirectory(tmp_path / "bare")
    run.write_identity({"format": "picolm.run/1", "name": "bare", "variant": "", "seed": None})
    return run
