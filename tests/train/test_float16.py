"""`16-mixed`: a scaled loss, and steps that are made again where a gradient overflows. In true float16, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from picolm.base.errors import PicoError
from picolm.model import precision
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import open_snapshot
from picolm.testing.tiny import merged, training_content
from picolm.train import loss_scale, setup
from picolm.train.loss_scale import LossScale
from picolm.train.methods.contract import StepResult
from picolm.train.methods.plain import Plain
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, file_hashes, weights

EVERYTHING = {"learning_dynamics": {"ov_gradients": True, "micro_batch_norms": True}}


@pytest.fixture(autouse=True)
def in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies float16: torch computes the same numbers without, only slowly."""
    monkeypatch.setattr(precision, "cpu_multiplies", lambda _: True)
    monkeypatch.setattr(setup, "cpu_multiplies", lambda _: True)


def run(make_config: ConfigMaker, name: str, *, asked: str = "16-mixed", checkpointing: Any = None, **training: Any) -> Path:
    changes = {"training": {"fabric": {"precision": asked}, **training}, "checkpointing": checkpointing or EVERYTHING}
    return run_training(make_config(name, **changes), Recording()).run


def scales(run: Path) -> list[float]:
    return [row["loss_scale"] for row in trainlog.read_rows(RunDirectory(run).log_file)]


def errors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[float]:
    assert first.keys() == second.keys() and first
    return [float((first[name].double() - second[name].double()).norm() / second[name].double().norm()) for name in first]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("first_scale", [2.0**16, 2.0**60])
def test_every_gradient_that_is_seen_is_the_true_one_to_the_digits_of_float16(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, first_scale: float, compiled: bool
) -> None:
    """Those of the step and of the val batch, of circuits and of micro-batches; also where the first attempts overflow."""
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", first_scale)
    exact = run(make_config, "exact", asked="32-true", max_steps=1)
    half = run(make_config, "half", max_steps=1, compile=compiled)
    assert (scales(half)[0] < first_scale) is (first_scale > 2**16)
    for split in ("train", "val"):
        ours, true = (open_snapshot(each / "checkpoints" / "step_0", 0, split) for each in (half, exact))
        for data_type in ("gradients", "ov_gradients"):
            found = errors(ours.tensors(data_type), true.tensors(data_type))
            assert 0 < max(found) < 0.01  # float16 has 11 significant bits; identical ones would not be float16
    ours, true = (
        open_snapshot(each / "checkpoints" / "step_0", 0, "train").info["micro_batch_squared_norms"] for each in (half, exact)
    )
    assert ours.keys() == true.keys() and all(ours[name] == pytest.approx(norms, rel=0.02) for name, norms in true.items())
    rows = [trainlog.read_rows(RunDirectory(each).log_file)[0] for each in (half, exact)]
    assert rows[0]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=0.01)


def test_it_learns_as_float32_does_and_loses_no_update_to_overflows(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**60)
    monkeypatch.setattr(loss_scale, "UPDATES_BEFORE_GROWTH", 4)  # the scale grows until it overflows, again and again
    exact, half = (run(make_config, asked, asked=asked, max_steps=60) for asked in ("32-true", "16-mixed"))
    logs = [trainlog.read_rows(RunDirectory(each).log_file) for each in (exact, half)]
    assert [row["skipped_updates"] for row in logs[1]] == [0] * 60
    assert [row["loss"] for row in logs[1]] == pytest.approx([row["loss"] for row in logs[0]], rel=0.01)
    assert logs[1][-1]["loss"] < 0.7 * logs[1][0]["loss"]
    changes = {after / before for before, after in pairwise(scales(half))}
    assert min(changes) < 1 < max(changes)


@pytest.mark.parametrize("stop_at", [1, 3, 6])
def test_a_resumed_run_equals_an_uninterrupted_one(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(loss_scale, "UPDATES_BEFORE_GROWTH", 2)
    whole = run(make_config, "whole")
    config = make_config("parts", training={"fabric": {"precision": "16-mixed"}}, checkpointing=EVERYTHING)
    assert not run_training(config, Recording(stop_at=stop_at)).complete
    parts = run_training(config, Recording()).run
    assert scales(parts) == scales(whole) and len(set(scales(whole))) > 2
    for step in (1, 2, 5, 8):
        assert file_hashes(parts, step) == file_hashes(whole, step)


def test_training_is_the_same_whatever_is_kept_of_it(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the passes of a snapshot overflow: what scale they need is no business of the training."""
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**60)
    rich = run(make_config, "rich")
    bare = run(make_config, "bare", checkpointing={"learning_dynamics": {"enabled": False}, "steps": [0]})
    assert all_equal(weights(rich, 8), weights(bare, 8))
    assert scales(rich) == scales(bare)


def test_a_gradient_that_no_scale_makes_finite_is_skipped_as_any_other_and_leaves_the_scale_alone(
    make_config: ConfigMaker,
) -> None:
    config = make_config(training={"fabric": {"precision": "16-mixed"}, "optimization": {"lr": 1e30}, "max_skipped_updates": 2})
    with pytest.raises(PicoError, match="is not finite"):
        run_training(config, Recording())
    directory = RunDirectory(Path(config.checkpointing.runs_dir) / config.run_name)
    assert set(scales(directory.path)) == {loss_scale.FIRST_SCALE}
    assert trainlog.read_rows(directory.log_file)[-1]["skipped_updates"] > 0


def test_dropout_is_drawn_again_so_that_only_the_last_attempt_counts(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"name": "relora", "rank": 2, "dropout": 0.5, "warm_start_share": 0.0, "reset_every_steps": 4}
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**60)
    after_overflows = run(make_config, "overflows", method=method)
    fitting = max(scales(after_overflows))
    assert fitting < 2.0**60
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", scales(after_overflows)[0])
    assert all_equal(weights(run(make_config, "fits", method=method), 8), weights(after_overflows, 8))


def test_a_loss_that_is_not_finite_is_not_tried_again(make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []
    forward_backward = Plain.forward_backward

    def counted(self: Plain, model: Any, batch: Any, fabric: Any) -> StepResult:
        passes.append(batch.step)
        return replace(forward_backward(self, model, batch, fabric), loss_sum=torch.tensor(float("nan")))

    monkeypatch.setattr(Plain, "forward_backward", counted)
    dynamics = {"learning_dynamics": {"enabled": False}, "steps": [0]}
    config = make_config(training={"fabric": {"precision": "16-mixed"}, "max_skipped_updates": 1}, checkpointing=dynamics)
    with pytest.raises(PicoError, match="is not finite"):
        run_training(config, Recording())
    assert passes == [0, 1]


def test_a_run_that_was_on_a_processor_without_float16_begins_with_the_usual_scale(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training={"fabric": {"precision": "16-mixed"}}, checkpointing=EVERYTHING)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(setup, "cpu_multiplies", lambda _: False)
        elsewhere.setattr(precision, "cpu_multiplies", lambda _: False)
        assert not run_training(config, Recording(stop_at=4)).complete
    done = run_training(config, Recording()).run
    rows = trainlog.read_rows(RunDirectory(done).log_file)
    assert [row.get("loss_scale") for row in rows] == [None] * 4 + [loss_scale.FIRST_SCALE] * 4


def test_two_processes_agree_on_the_scale(
    make_config: ConfigMaker, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\nfrom picolm.model import precision\nfrom picolm.train import loss_scale\n"
        "precision.cpu_multiplies = lambda _: True\nloss_scale.FIRST_SCALE = 2.0**60\n"
        "from picolm.cli.main import main\nsys.argv[0] = 'pico'\nmain()\n"
    )
    content = training_content(tiny_data, tmp_path / "runs", "two")
    changes = {"training": {"fabric": {"precision": "16-mixed", "num_devices": 2}}, "checkpointing": EVERYTHING}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(merged(content, changes)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command = [*launcher, str(script), "train", str(tmp_path / "two.yaml")]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    monkeypatch.setattr(loss_scale, "FIRST_SCALE", 2.0**60)
    one = run(make_config, "one")
    both = [trainlog.read_rows(RunDirectory(each).log_file) for each in (one, tmp_path / "runs" / "two")]
    assert [row["loss"] for row in both[1]] == pytest.approx([row["loss"] for row in both[0]], rel=0.01)
    assert both[1][0]["loss_scale"] < 2.0**60
    ours, true = (open_snapshot(each / "checkpoints" / "step_0", 0, "train") for each in (tmp_path / "runs" / "two", one))
    assert max(errors(ours.tensors("ov_gradients"), true.tensors("ov_gradients"))) < 0.01


def test_relora_keeps_the_gradients_of_its_frozen_weights(make_config: ConfigMaker) -> None:
    method = {"name": "relora", "rank": 2, "warm_start_share": 0.0, "reset_every_steps": 4}
    exact, half = (run(make_config, asked, asked=asked, max_steps=1, method=method) for asked in ("32-true", "16-mixed"))
    ours, true = (open_snapshot(each / "checkpoints" / "step_0", 0, "train").gradients for each in (half, exact))
    assert 0 < max(errors(ours, true)) < 0.01


def test_maml_says_that_it_cannot_train_in_float16(make_config: ConfigMaker) -> None:
    config = make_config(training={"fabric": {"precision": "16-mixed"}, "method": {"name": "maml"}})
    with pytest.raises(PicoError, match=r"training\.method \(maml\) does not support float16"):
        run_training(config, Recording())


def test_the_scale_grows_after_many_updates_and_restores_what_a_checkpoint_kept() -> None:
    scale = LossScale(active=True)
    for _ in range(loss_scale.UPDATES_BEFORE_GROWTH):
        assert scale.value == 2.0**16
        scale.update()
    assert (scale.value, scale.updates) == (2.0**17, 0)
    scale.restore(8.0, 3)
    assert (scale.value, scale.updates) == (8.0, 3)
    idle = LossScale(active=False)
    idle.restore(8.0, 3)
    assert idle.value == 1.0
    scale.restore(None, 0)
    assert scale.value == 8.0
