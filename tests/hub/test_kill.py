"""The uploader is killed at every request, before and after the Hub acts on it; another sync always ends in the same state."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from picolm.hub.outbox import Destination, Outbox
from picolm.records.rundir import RunDirectory
from tests.hub.conftest import REPO, TOKEN, make_run
from tests.hub.double import HubDouble, hub_double


class Uploads:
    """Publishes a run in another process, which `kill` ends at once."""

    def __init__(self, endpoint: str) -> None:
        online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
        settings = {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.uploader_to_kill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=online | settings,
            cwd=Path(__file__).parents[2],
        )
        self._child = 0

    def publish(self, run: RunDirectory) -> int:
        """The exit code: 0, or minus the signal."""
        self._process.stdin.write(f"{run.path}\n")
        self._process.stdin.flush()
        self._child = int(self._process.stdout.readline().split()[1])
        return int(self._process.stdout.readline().split()[1])

    def kill(self) -> None:
        os.kill(self._child, signal.SIGKILL)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture
def uploads(hub: HubDouble) -> Iterator[Uploads]:
    process = Uploads(hub.endpoint)
    yield process
    process.close()


def begin_again(hub: HubDouble, template: RunDirectory, place: Path) -> RunDirectory:
    """An empty Hub and an outbox that was never opened."""
    with hub.lock:
        hub.repos.clear()
        hub.objects.clear()
        hub.log.clear()
    hub.before = hub.after = lambda number, request: None
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template.path, place)
    return RunDirectory(place)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_at_any_request_and_synced_again_the_remote_state_is_the_same(hub: HubDouble, uploads: Uploads, tmp_path: Path):
    template = make_run(tmp_path / "template" / "tiny", steps=(0, 10), dynamics=False)
    Outbox(template).address(Destination(REPO))
    place = tmp_path / "run" / "tiny"
    assert uploads.publish(begin_again(hub, template, place)) == 0
    wanted, requests = hub.repos[REPO].state(), [request for request in hub.log if "agent-harnesses" not in request.path]
    assert len(requests) > 15
    for index, killed in enumerate(requests):
        for moment in ("before", "after") if killed.method in ("POST", "PUT") else ("before",):
            run = begin_again(hub, template, place)
            counted: list[Any] = []

            def kill_there(number: int, request: Any, index: int = index, counted: list[Any] = counted) -> None:
                if "agent-harnesses" not in request.path:
                    counted.append(request)
                    if len(counted) == index + 1:
                        uploads.kill()

            setattr(hub, moment, kill_there)
            assert uploads.publish(run) == -signal.SIGKILL, (index, moment)
            setattr(hub, moment, lambda number, request: None)
            assert uploads.publish(run) == 0
            assert hub.repos[REPO].state() == wanted, (index, moment)


def test_the_double_itself_ends_while_something_waits_for_an_answer():
    with hub_double() as server:
        assert server.endpoint.startswith("http://127.0.0.1:")
