from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from picolm.base.errors import PicoError
from picolm.train.lock import RunLock, process_space
from picolm.train.saver import BackgroundSaver


def test_a_second_writer_is_refused_and_the_first_keeps_the_lock(tmp_path: Path):
    path = tmp_path / "run.lock"
    with RunLock(path) as first:
        with pytest.raises(PicoError, match="is writing this run"), RunLock(path):
            pass
        first.check()
    assert not path.exists()


def test_the_lock_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path: Path):
    path = tmp_path / "run.lock"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps({"process": gone.pid, "processes": process_space(), "token": "x", "fence": 4}))
    with RunLock(path):
        assert json.loads(path.read_text())["fence"] == 5


def test_a_process_elsewhere_counts_as_gone_when_its_heartbeat_stops(tmp_path: Path):
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"process": 1, "processes": "another machine", "token": "x", "fence": 0}))
    with pytest.raises(PicoError, match="is writing this run"), RunLock(path, stale_seconds=60):
        pass
    os.utime(path, (time.time() - 61, time.time() - 61))
    with RunLock(path, stale_seconds=60):
        pass


def test_a_sleeper_that_was_taken_over_may_not_write(tmp_path: Path):
    path = tmp_path / "run.lock"
    sleeper = RunLock(path, heartbeat_seconds=60)
    sleeper.__enter__()
    os.utime(path, (time.time() - 120, time.time() - 120))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "processes": "another machine"}))
    os.utime(path, (time.time() - 120, time.time() - 120))
    with RunLock(path) as heir:
        with pytest.raises(PicoError, match="has taken over"):
            sleeper.check()
        heir.check()
        sleeper.__exit__(None, None, None)
        heir.check()


def test_the_heartbeat_keeps_the_lock_fresh(tmp_path: Path):
    path = tmp_path / "run.lock"
    with RunLock(path, heartbeat_seconds=0.02):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 5


def test_no_thread_outlives_its_write():
    """A thread that has computed with torch keeps OpenMP workers, which slow down the loop (docs/log.md)."""
    saver, writers = BackgroundSaver(), []
    saver.submit("checkpoint", lambda: writers.append(threading.current_thread()))
    saver.wait()
    writers[0].join(timeout=10)
    assert not writers[0].is_alive()


def test_background_writes_keep_their_order_and_errors_reach_the_caller():
    saver, written = BackgroundSaver(), []

    def slow() -> None:
        time.sleep(0.05)
        written.append("first")

    def full() -> None:
        raise OSError(28, "No space left on device")

    saver.submit("checkpoint 1", slow)
    assert saver.submit("checkpoint 2", lambda: written.append("second")) > 0.01
    saver.submit("checkpoint 3", full)
    with pytest.raises(PicoError, match=r"checkpoint 3 could not be written.*No space left"):
        saver.close()
    assert written == ["first", "second"]
