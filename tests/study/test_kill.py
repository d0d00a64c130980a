"""A study whose process is killed goes on where it stopped: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.study.conftest import InThisProcess, Notes, StudyMaker

from picolm.records import trainlog
from picolm.records.studydir import StudyDirectory
from picolm.study.executor import LocalProcesses
from picolm.study.lock import read_lock
from picolm.study.locking import lock_to_run
from picolm.study.matrix import cells
from picolm.study.runner import run_study
from picolm.study.tamper import find_tampering

CHANGES = {
    "seeds": {"tuning": [91], "confirm": [1]},
    "base": {"training": {"max_steps": 40}, "monitoring": {"logging": {"log_every_n_steps": 20}}},
}


def losses(directory: StudyDirectory) -> dict[str, list[float]]:
    """Run -> its logged losses, without clocks."""
    places = cells(directory, read_lock(directory.lock_file))
    return {cell.run.name: [row["loss"] for row in trainlog.read_rows(cell.run.log_file)] for cell in places}


def started(directory: StudyDirectory) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "picolm.cli.main", "study", "run", str(directory.path), "--at-once", "2", "--force"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_for(path: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_study_killed_without_warning_and_repeated_ends_with_the_same_table(make_study: StudyMaker) -> None:
    whole, cut = make_study("whole", **CHANGES), make_study("cut", **CHANGES)
    run_study(whole, lock_to_run(whole), InThisProcess(), Notes(), poll_seconds=0)

    process = started(cut)
    wait_for(cut.run("slow-seed-91").identity_file, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cut.running_file.exists()

    lock = lock_to_run(cut)
    executor = LocalProcesses(threads=1, memory_bytes=0, most=2)
    outcome = run_study(cut, lock, executor, Notes())
    assert outcome.complete and not outcome.failed
    assert losses(cut) == losses(whole) and len(losses(cut)) == 4
    assert find_tampering(cut, lock) == []
    assert not cut.running_file.exists()
