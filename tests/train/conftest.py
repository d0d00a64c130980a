"""The tiny corpus of `picolm.testing`, and configurations that train a tiny decoder on it in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picolm.testing.tiny import Workshop, merged, training_content
from picolm.train.config import RunConfig, parse_config


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data: rows of 17 tokens, a few hundred of them, and a val split."""
    return Workshop(tmp_path_factory.mktemp("tiny")).data


ConfigMaker = Callable[..., RunConfig[Any]]


@pytest.fixture
def make_config(tiny_data: Path, tmp_path: Path) -> ConfigMaker:
    """Resolved configurations of the tiny run: `make_config("name", training={...})`."""

    def make(name: str = "tiny", **changes: Any) -> RunConfig[Any]:
        content = merged(training_content(tiny_data, tmp_path / "runs", name), changes)
        return parse_config(content, "tiny.yaml", default_name=name)

    return make
