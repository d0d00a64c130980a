"""Signals, clocks, locks that do nothing, readers that fail: the run is as it would have been, or stops and says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.records.rundir import RunDirectory
from picolm.train import checkpoint as checkpoint_module
from picolm.train.lock import RunLock
from picolm.train.stop import STOP_SIGNALS, stop_on_signals
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, file_hashes

STEPS = (0, 1, 2, 5, 8)


def all_hashes(run: Path) -> dict[int, dict[str, str]]:
    return {step: file_hashes(run, step) for step in STEPS}


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_every_stop_signal_saves_at_the_end_of_the_step(make_config: ConfigMaker, number: signal.Signals):
    first = run_training(make_config(), Recording(stop_at=4, signal_number=number))
    assert (first.complete, RunDirectory(first.run).steps()[-1]) == (False, first.step)
    assert run_training(make_config(), Recording()).complete


def test_a_signal_during_a_save_waits_for_it(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch):
    whole = run_training(make_config("whole"), Recording()).run
    original = checkpoint_module.write_state

    def write_and_signal(*arguments: Any) -> None:
        original(*arguments)
        if arguments[1].step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.1)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_state", write_and_signal)
        stopped = run_training(make_config(), Recording())
    assert not stopped.complete
    assert 2 in RunDirectory(stopped.run).steps()
    assert all_hashes(run_training(make_config(), Recording()).run) == all_hashes(whole)


def test_a_second_signal_ends_at_once():
    said: list[str] = []
    with stop_on_signals(said.append) as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert len(said) == 1


def test_no_name_and_no_order_comes_from_the_clock(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch):
    whole = run_training(make_config("whole"), Recording()).run
    run_training(make_config("parts"), Recording(stop_at=3))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 400_000_000)
    parts = run_training(make_config("parts"), Recording()).run
    monkeypatch.undo()
    time.tzset()
    assert all_hashes(parts) == all_hashes(whole)


def test_a_file_system_where_flock_always_succeeds_has_one_writer_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    monkeypatch.setattr(fcntl, "lockf", lambda *arguments: None)
    with RunLock(tmp_path / "run.lock"), pytest.raises(PicoError, match="is writing this run"), RunLock(tmp_path / "run.lock"):
        pass


def test_other_versions_are_said_when_a_run_continues(make_config: ConfigMaker):
    run = run_training(make_config(), Recording(stop_at=3)).run
    facts = json.loads((run / "run.json").read_text())
    facts["environment"]["torch"] = "2.0.0"
    (run / "run.json").write_text(json.dumps(facts))
    observer = Recording()
    assert run_training(make_config(), observer).complete
    assert sum("torch 2.0.0 ->" in sentence and "bit-exact" in sentence for sentence in observer.sentences) == 1


def test_a_reader_that_fails_stops_the_run_with_its_cause(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch):
    from picolm.data.loader import BatchLoader

    original = BatchLoader.batch_of_step

    def failing(self: BatchLoader, step: int) -> Any:
        if step == 5:
            raise PicoError("train-00000-of-00001.parquet cannot be read: Input/output error")
        return original(self, step)

    whole = run_training(make_config("whole"), Recording()).run
    with monkeypatch.context() as patch:
        patch.setattr(BatchLoader, "batch_of_step", failing)
        with pytest.raises(PicoError, match="Input/output error"):
            run_training(make_config(), Recording())
    assert all_hashes(run_training(make_config(), Recording()).run) == all_hashes(whole)


def test_a_removed_lock_is_said_as_such(tmp_path: Path):
    path = tmp_path / "run.lock"
    with RunLock(path) as lock:
        path.unlink()
        with pytest.raises(PicoError, match="was removed while"):
            lock.check()


def test_a_checkpoint_of_another_run_in_the_folder_is_refused(make_config: ConfigMaker):
    run_training(make_config("mine"), Recording(stop_at=3))
    other = run_training(make_config("other", training={"optimization": {"lr": 0.02}}), Recording()).run
    mine = other.parent / "mine"
    shutil.copytree(other / "checkpoints" / "step_5", mine / "checkpoints" / "step_5")
    with pytest.raises(PicoError, match="step_5 belongs to another run"):
        run_training(make_config("mine"), Recording())
