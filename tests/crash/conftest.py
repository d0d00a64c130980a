"""A tiny run for crashes: four updates, a checkpoint at 0, 1, 2 and 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picolm.testing.tiny import merged, training_content

from ..train.conftest import tiny_data
from .tracing import why_not_traceable

__all__ = ["tiny_data"]


@pytest.fixture(scope="session")
def traceable() -> None:
    """Skips, with the reason, where processes cannot be traced."""
    reason = why_not_traceable()
    if reason is not None:
        pytest.skip(reason)


def short_content(data: Path, runs: Path) -> dict[str, Any]:
    """The training file of the run that crashes."""
    changes = {"training": {"max_steps": 4}, "checkpointing": {"steps": [0, 1, 2, 4]}}
    return merged(training_content(data, runs), changes)
