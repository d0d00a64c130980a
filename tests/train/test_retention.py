from __future__ import annotations

from pathlib import Path

import pytest

from picolm.base.errors import PicoError
from picolm.records.manifest import find_damage, read_manifest
from picolm.records.rundir import RunDirectory
from picolm.train.retention import remove_old_training_states
from picolm.train.train import run_training

from .conftest import ConfigMaker
from .recording import Recording, all_equal, weights


def steps_with_state(run: Path) -> list[int]:
    return sorted(int(path.parent.name.removeprefix("step_")) for path in run.glob("checkpoints/step_*/training_state"))


def test_only_the_newest_training_states_are_kept_and_the_rest_stays_whole(make_config: ConfigMaker):
    run = run_training(make_config(checkpointing={"keep_training_states": 2}), Recording()).run
    assert steps_with_state(run) == [5, 8]
    for step in (0, 1, 2, 5, 8):
        folder = run / "checkpoints" / f"step_{step}"
        manifest = read_manifest(folder)
        assert "training_state" in manifest.parts
        assert find_damage(folder, manifest) == []
        assert (folder / "learning_dynamics").is_dir()


def test_a_run_with_retention_continues_bit_for_bit(make_config: ConfigMaker):
    whole = run_training(make_config("whole"), Recording()).run
    config = make_config("parts", checkpointing={"keep_training_states": 1})
    run_training(config, Recording(stop_at=3))
    run_training(config, Recording(stop_at=6))
    parts = run_training(config, Recording()).run
    assert steps_with_state(parts) == [8]
    assert all_equal(weights(whole, 8), weights(parts, 8))


def test_nothing_is_removed_while_the_newest_checkpoint_is_damaged(make_config: ConfigMaker):
    run = run_training(make_config(), Recording()).run
    newest = run / "checkpoints" / "step_8" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(PicoError, match=r"model\.safetensors has"):
        remove_old_training_states(RunDirectory(run), keep=1)
    assert steps_with_state(run) == [0, 1, 2, 5, 8]


def test_what_a_killed_process_left_is_reclaimed_when_the_run_continues(make_config: ConfigMaker):
    run = run_training(make_config(), Recording(stop_at=3)).run
    left = [run / "checkpoints" / ".step_5.tmp-1-ab", run / "logs" / ".train.jsonl.tmp-1-ab", run / ".run.json.tmp-1-ab"]
    left[0].mkdir()
    (left[0] / "model.safetensors").write_bytes(b"half")
    for path in left[1:]:
        path.write_text("half")
    run_training(make_config(), Recording())
    assert not [path for path in left if path.exists()]
