"""Steps of a series, found, fetched and doubted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from picolm.analyze.config import load_analysis
from picolm.analyze.engine import run_analysis
from picolm.analyze.source import open_source
from picolm.base.errors import PicoError
from picolm.capture.doctor import find_disorder
from picolm.capture.post_hoc import Request, capture_series
from picolm.capture.series import parse_series
from picolm.capture.writer import SnapshotBatch
from picolm.records.manifest import verify
from picolm.records.rundir import RunDirectory

from .series_example import KINDS, STEPS


def capture(pattern: str, out: Path, batch: SnapshotBatch, steps: list[int] | None = None, **changes: Any) -> list[str]:
    series = parse_series(pattern)
    request = Request(series=series, batch=batch, data_name="data", decode=None, **changes)
    return capture_series(request, series.members(steps), RunDirectory(out), lambda sentence: None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_series_is_analysed_like_a_run(all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, kind: str):
    out = tmp_path / "run"
    assert capture(f"{all_series[kind]}/step{{step}}", out, batch, tokens_per_step=100) == []
    rows = run_analysis(open_source(out), load_analysis("captured")).rows
    assert sorted(rows["step"].unique()) == list(STEPS)
    assert set(rows[rows["step"] == 4]["tokens"]) == {400}
    defined = rows[rows["value"].notna()]
    assert {"weights", "activations", "gradients", "first_order"} == set(defined["data_type"])
    assert set(rows[rows["value"].isna()]["metric"]) <= {"condition_number", "cka", "pwcca"}
    assert not list(out.rglob("model*.safetensors"))
    for step in STEPS:
        verify(RunDirectory(out).checkpoint(step))


def test_the_same_weights_under_two_steps_are_reported(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    shutil.copy(llama_series / "step1/model.safetensors", llama_series / "step4/model.safetensors")
    problems = capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch)
    assert problems == ["step 4 has the same weights as step 1 (equal SHA-256)"]
    assert json.loads((tmp_path / "run/source.json").read_text())["problems"] == problems


def test_the_same_weights_in_other_files_are_reported(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save_file(load_file(llama_series / "step1/model.safetensors"), llama_series / "step4/model.safetensors", {"note": "other"})
    assert capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch) == [
        "step 4 has the same sampled weights as step 1, in another file"
    ]


def test_steps_that_changed_places_are_reported(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    for old, new in (("step2", "aside"), ("step4", "step2"), ("aside", "step4")):
        (llama_series / old).rename(llama_series / new)
    problems = capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch)
    assert len(problems) == 1
    assert problems[0].startswith("steps 2, 4 seem out of order")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_a_random_walk_is_in_order_and_reordered_stretches_are_found(seed: int, drift: float):
    draw = torch.Generator().manual_seed(seed)
    direction_S = drift * torch.randn(4096, generator=draw)
    walk = (torch.randn(12, 4096, generator=draw) + direction_S).cumsum(dim=0)
    steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    assert find_disorder(dict(zip(steps, walk, strict=True))) == []
    for start, end in ((0, 1), (3, 4), (5, 8), (10, 11)):
        order = list(range(12))
        order[start : end + 1] = reversed(order[start : end + 1])
        found = find_disorder(dict(zip(steps, walk[order], strict=True)))
        assert len(found) == 1
        assert all(str(step) in found[0] for step in steps[start : end + 1])


def test_a_folder_that_says_it_is_another_step_is_reported(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    (llama_series / "step2/trainer_state.json").write_text('{"global_step": 3}')
    problems = capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch, [2])
    assert problems == ["step 2: its trainer_state.json says global_step 3"]


def test_a_capture_continues_where_it_stopped_and_refuses_other_settings(
    llama_series: Path, batch: SnapshotBatch, tmp_path: Path
):
    pattern, out = f"{llama_series}/step{{step}}", tmp_path / "run"
    capture(pattern, out, batch, [0, 1])
    before = (out / "checkpoints/step_1/manifest.json").read_bytes()
    capture(pattern, out, batch)
    assert RunDirectory(out).steps() == list(STEPS)
    assert (out / "checkpoints/step_1/manifest.json").read_bytes() == before
    with pytest.raises(PicoError, match="positions differ"):
        capture(pattern, out, batch, positions="all")


def test_weights_that_changed_after_capture_are_refused(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch, [1, 2])
    shutil.copy(llama_series / "step4/model.safetensors", llama_series / "step2/model.safetensors")
    with pytest.raises(PicoError, match=r"step2/model.safetensors has changed since it was captured"):
        run_analysis(open_source(tmp_path / "run"), load_analysis("captured"))


def test_pickled_weights_are_refused(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    (llama_series / "step2/model.safetensors").rename(llama_series / "step2/pytorch_model.bin")
    with pytest.raises(PicoError, match="has no weights in safetensors"):
        capture(f"{llama_series}/step{{step}}", tmp_path / "run", batch, [2])


def test_tokens_of_another_vocabulary_are_refused(llama_series: Path, batch: SnapshotBatch, tmp_path: Path):
    other = SnapshotBatch(batch.rows, batch.tokens + 50, batch.fingerprint)
    with pytest.raises(PicoError, match="the model's vocabulary is 288"):
        capture(f"{llama_series}/step{{step}}", tmp_path / "run", other, [2])


def test_a_pattern_finds_the_steps_there_are_and_names_those_missing(llama_series: Path):
    (llama_series / "step2").rename(llama_series / "step2-tokens5B")
    series = parse_series(f"{llama_series}/step{{step}}*")
    assert [member.step for member in series.members(None)] == list(STEPS)
    assert series.members([2])[0].name.endswith("step2-tokens5B")
    with pytest.raises(PicoError, match="there is no step 3"):
        series.members([2, 3])
    shutil.copytree(llama_series / "step4", llama_series / "step2")
    with pytest.raises(PicoError, match="are both step 2"):
        series.members(None)


def test_a_single_checkpoint_tells_its_step_by_its_name():
    assert parse_series("org/name@step1000").members(None)[0].step == 1000
    assert parse_series("org/name@main").members([7])[0].step == 7
    with pytest.raises(PicoError, match="does not tell its step"):
        parse_series("org/name@main").members(None)
    with pytest.raises(PicoError, match="2 steps are asked for"):
        parse_series("org/name@step1").members([1, 2])


def test_hub_revisions_are_read_from_the_commit_they_stood_for(
    all_series: dict[str, Path], batch: SnapshotBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Against the cache of huggingface_hub as it lies on disk, without a network."""
    cache = tmp_path / "hub"
    repo = cache / "models--org--tiny"
    for step in (1, 2):
        commit = f"{step}" * 40
        shutil.copytree(all_series["llama"] / f"step{step}", repo / "snapshots" / commit)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / f"refs/step{step}").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    capture("org/tiny@step{step}", tmp_path / "hub-run", batch, [1, 2])
    source = json.loads((tmp_path / "hub-run/checkpoints/step_2/source.json").read_text())
    assert (source["repo"], source["revision"], source["commit"], source["path"]) == ("org/tiny", "step2", "2" * 40, None)
    (repo / "refs/step2").write_text("1" * 40)  # the branch moves on
    capture(f"{all_series['llama']}/step{{step}}", tmp_path / "local-run", batch, [1, 2])
    values = [
        run_analysis(open_source(tmp_path / name), load_analysis("captured")).rows["value"] for name in ("hub-run", "local-run")
    ]
    assert values[0].equals(values[1])
    with pytest.raises(PicoError, match="org/tiny@step3 cannot be fetched"):
        capture("org/tiny@step{step}", tmp_path / "third", batch, [3])


def test_the_command_captures_prepared_text_and_says_what_is_odd(
    llama_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from typer.testing import CliRunner

    from picolm.cli.main import app
    from picolm.data.prepare import PrepareSettings, prepare
    from picolm.data.tokenizer import train_tokenizer

    words = [f"{first}{second}" for first in "abcd" for second in "efgh"]
    texts = [" ".join(words[(row * 7 + place * 3) % 16] for place in range(9)) for row in range(200)]
    (tmp_path / "text.txt").write_text("\n".join(texts))
    tokenizer = train_tokenizer(iter(texts), tmp_path / "tokenizer", vocab_size=270)
    prepare([str(tmp_path / "text.txt")], tokenizer=tokenizer, out=tmp_path / "data", settings=PrepareSettings(max_seq_len=12))
    arguments = ["capture", f"{llama_series}/step{{step}}", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    shutil.copy(llama_series / "step1/model.safetensors", llama_series / "step2/model.safetensors")
    done = CliRunner().invoke(app, [*arguments, "--steps", "0,1,2", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(next(line for line in done.output.splitlines() if line.startswith("{")))
    assert told["steps"] == [0, 1, 2]
    assert told["problems"] == ["step 2 has the same weights as step 1 (equal SHA-256)"]
    with pytest.raises(PicoError, match="--steps = '2,1': the steps do not ascend"):
        app([*arguments, "--steps", "2,1"], standalone_mode=False)
