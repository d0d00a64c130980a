"""Fixtures every room shares. Tests never reach the network: the Hub client is told so before anything imports it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with oracles and real data. Without it tests skip, except in CI, where that is a failure."""
    place = os.environ.get("PICO_TEST_DATA")
    if place is None:
        reason = "PICO_TEST_DATA is not set: it names the folder with `oracles/` and `data/` (see CONTRIBUTING.md)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(place)
    if not (folder / "oracles").is_dir():
        pytest.fail(f"PICO_TEST_DATA={place} has no folder `oracles`")
    return folder
