"""One workshop for all checks: its corpus and its finished run are made once."""

from __future__ import annotations

import pytest

from picolm.testing.tiny import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))
