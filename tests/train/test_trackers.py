from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picolm.records import trainlog
from picolm.train import trackers
from picolm.train.speed import peak_flops
from picolm.train.spikes import SpikeWatch
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, weights


def test_tensorboard_has_every_row(make_config: ConfigMaker):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_training(make_config(monitoring={"tensorboard": True}), Recording()).run
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = [row["loss"] for row in trainlog.read_rows(run / "logs" / "train.jsonl")]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged, rel=1e-6)
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))


def test_wandb_without_a_login_logs_offline_and_says_so(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    observer = Recording()
    run = run_training(make_config(monitoring={"save_to_wandb": True}), observer).run
    assert sum("offline" in sentence for sentence in observer.sentences) == 1
    assert list((run / "wandb").glob("offline-run-*/run-*.wandb"))


def broken_opener(*arguments: Any) -> Any:
    raise ConnectionError("no route to host")


def opener_of_a_tracker_that_breaks(*arguments: Any) -> Any:
    def track(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise ConnectionError("gone away")

    def close() -> None:
        raise ValueError("closed twice")

    return track, close


@pytest.mark.parametrize(
    ("opener", "sentence"), [(broken_opener, "cannot be used: no route"), (opener_of_a_tracker_that_breaks, "gone away")]
)
def test_a_tracker_that_fails_never_harms_the_run(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, opener: Any, sentence: str
):
    alone = run_training(make_config("alone"), Recording()).run
    monkeypatch.setattr(trackers, "open_wandb", opener)
    observer = Recording()
    outcome = run_training(make_config("tracked", monitoring={"save_to_wandb": True}), observer)
    assert outcome.complete
    assert sum(sentence in said for said in observer.sentences) == 1
    assert all_equal(weights(alone, 8), weights(outcome.run, 8))


def test_a_loss_far_above_the_rows_before_it_is_a_spike():
    watch = SpikeWatch()
    assert not any(watch.is_spike(3.0 + 0.01 * (number % 5)) for number in range(40))
    assert not watch.is_spike(3.06)
    assert not watch.is_spike(None)
    assert watch.is_spike(3.5)


def test_peaks_are_found_by_the_most_specific_name():
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("Some CPU") is None
