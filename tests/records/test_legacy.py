"""Folders of the original trainer are read as they are, and nothing in them is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from legacy_example import LAYERS, WIDTH, write_original_folder

from picolm.base.errors import PicoError
from picolm.records.legacy import LegacyRun, is_legacy_run


def test_steps_and_tensors_are_found_under_plain_names(tmp_path: Path) -> None:
    weights = write_original_folder(tmp_path / "original")
    run = LegacyRun(tmp_path / "original")
    assert is_legacy_run(run.path)
    assert (run.steps(), run.tokens(100)) == ([0, 100], 100 * 8 * 64)
    snapshot = run.snapshot(100, "train")
    assert len(snapshot.weights) == len(weights[100])
    for name in snapshot.weights:
        assert torch.equal(snapshot.weights[name], weights[100][f"{name}.weight"])
    assert list(snapshot.activations) == list(snapshot.gradients)
    assert snapshot.activations["layers.1.swiglu.w_2"].shape == (12, WIDTH)
    assert (snapshot.layout.query_heads, snapshot.layout.key_value_heads, snapshot.layout.head_width) == (4, 2, 4)


def test_captured_weights_stand_in_for_a_missing_model_file(tmp_path: Path) -> None:
    weights = write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "checkpoints" / "step_0" / "model.safetensors").unlink()
    snapshot = LegacyRun(tmp_path / "original").snapshot(0, "val")
    assert torch.equal(snapshot.weights["layers.0.attention.v_proj"], weights[0]["layers.0.attention.v_proj.weight"])
    assert len(snapshot.weights) == 3 * LAYERS


def test_what_was_not_captured_has_a_reason(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "checkpoints" / "step_0" / "learning_dynamics" / "val_gradients.pt").unlink()
    snapshot = LegacyRun(tmp_path / "original").snapshot(0, "val")
    assert snapshot.gradients.reason == "gradients of split val were not captured at this step"
    assert snapshot.updates.reason == "the original trainer captures no updates"


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def test_code_in_a_file_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_original_folder(tmp_path / "original")
    poisoned = tmp_path / "original" / "checkpoints" / "step_0" / "learning_dynamics" / "val_activations.pt"
    for content in (pickle.dumps({"layers.0.swiglu.w_2": Malicious()}), None):
        if content is None:
            torch.save({"layers.0.swiglu.w_2": Malicious()}, poisoned)
        else:
            poisoned.write_bytes(content)
        with pytest.raises(PicoError, match="cannot be read as plain tensors"):
            LegacyRun(tmp_path / "original").snapshot(0, "val")
        assert not (tmp_path / "executed").exists()


def test_run_of_ours_is_not_taken_for_one_of_theirs(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    (tmp_path / "original" / "run.json").write_text("{}")
    assert not is_legacy_run(tmp_path / "original")
    assert not is_legacy_run(tmp_path)


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    write_original_folder(tmp_path / "original")
    run = LegacyRun(tmp_path / "original")
    before = run.hashes(0, "train", ("weights", "gradients"))
    torch.save({"layers.0.swiglu.w_2": torch.zeros(2, 2)}, run.captured_file(0, "train", "gradients"))
    after = run.hashes(0, "train", ("weights", "gradients"))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False]
