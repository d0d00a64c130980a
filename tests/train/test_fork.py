from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import picolm.model.precision
from picolm.base.errors import PicoError
from picolm.cli.main import app
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.testing.tiny import training_content
from picolm.train import loss_scale, setup
from picolm.train.fork import Fork, parse_fork
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, file_hashes, weights


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_fork_with_the_same_settings_is_the_same_run_from_there_on(
    make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, precision: str
):
    monkeypatch.setattr(picolm.model.precision, "cpu_multiplies", lambda _: True)
    monkeypatch.setattr(setup, "cpu_multiplies", lambda _: True)
    monkeypatch.setattr(loss_scale, "UPDATES_BEFORE_GROWTH", 2)
    training = {"fabric": {"precision": precision}}
    whole = run_training(make_config("whole", training=training), Recording()).run
    branch = run_training(make_config("branch", training=training), Recording(), Fork(RunDirectory(whole), 2)).run
    assert sorted(RunDirectory(branch).steps()) == [2, 5, 8]
    for step in (5, 8):
        assert file_hashes(branch, step) == file_hashes(whole, step)
    assert all_equal(weights(branch, 2), weights(whole, 2))
    origin = json.loads((branch / "run.json").read_text())["forked_from"]
    assert (origin["run"], origin["step"]) == ("whole", 2)
    assert [row["step"] for row in trainlog.read_rows(branch / "logs" / "train.jsonl")] == list(range(3, 9))


def test_a_fork_takes_its_own_settings_and_stands_on_its_own(make_config: ConfigMaker):
    whole = run_training(make_config("whole"), Recording()).run
    changes = {"max_steps": 12, "optimization": {"weight_decay": 0.5, "lr_scheduler": "constant"}}
    config = make_config("branch", training=changes)
    fork = parse_fork(f"{whole}@5")
    first = run_training(config, Recording(stop_at=7), fork)
    assert not first.complete
    shutil.rmtree(whole)
    done = run_training(config, Recording())
    assert (done.step, done.tokens) == (12, 12 * 8 * 16)
    state = json.loads((done.run / "checkpoints" / "step_12" / "training_state" / "state.json").read_text())
    assert state["optimizer"]["groups"][0]["weight_decay"] == 0.5


def test_another_optimiser_begins_with_an_empty_state(make_config: ConfigMaker):
    whole = run_training(make_config("whole"), Recording()).run
    observer = Recording()
    config = make_config("branch", training={"optimization": {"optimizer": {"name": "sgd", "momentum": 0.9}}})
    branch = run_training(config, observer, parse_fork(f"{whole}@5")).run
    assert any("adamw before, sgd now" in sentence for sentence in observer.sentences)
    assert all_equal(weights(branch, 5), weights(whole, 5))
    entries = load_file(branch / "checkpoints" / "step_8" / "training_state" / "optimizer.safetensors")
    assert {name.rpartition("/")[2] for name in entries} == {"momentum_buffer"}


def test_the_refusal_of_a_changed_configuration_names_the_command_that_branches_off(make_config: ConfigMaker):
    run = run_training(make_config(), Recording()).run
    with pytest.raises(PicoError) as refusal:
        run_training(make_config(training={"optimization": {"lr": 0.02}}), Recording())
    assert f"--fork-from {run}@8 --set checkpointing.run_name=NAME" in refusal.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{run}", "not of the form RUN@STEP"),
        ("{run}@3", "no checkpoint of step 3"),
        ("{run}@1", "no training state any more"),
        ("{run}-nowhere@1", "is not a run folder"),
    ],
)
def test_what_cannot_be_forked_is_said(make_config: ConfigMaker, text: str, message: str):
    run = run_training(make_config(checkpointing={"keep_training_states": 2}), Recording()).run
    with pytest.raises(PicoError, match=message):
        parse_fork(text.format(run=run))


def test_a_fork_of_an_existing_run_is_refused_and_one_at_the_end_has_nothing_to_do(make_config: ConfigMaker):
    whole = run_training(make_config("whole"), Recording()).run
    with pytest.raises(PicoError, match="exists and began from its own seeds"):
        run_training(make_config("whole"), Recording(), parse_fork(f"{whole}@2"))
    with pytest.raises(PicoError, match=r"not before training\.max_steps"):
        run_training(make_config("branch"), Recording(), parse_fork(f"{whole}@8"))


def test_the_command_line_forks_and_repeating_the_command_continues(make_config: ConfigMaker, tiny_data: Path, tmp_path: Path):
    whole = run_training(make_config("whole"), Recording()).run
    path = tmp_path / "branch.yaml"
    path.write_text(yaml.safe_dump(training_content(tiny_data, tmp_path / "runs", "branch")))
    command = ["train", str(path), "--fork-from", f"{whole}@5"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (result.output, result.exception)
    assert RunDirectory(tmp_path / "runs" / "branch").steps() == [5, 8]
