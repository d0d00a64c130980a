"""`pico hub push / sync / pull / verify` as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from typer.testing import CliRunner, Result

from picolm.base.errors import PicoError
from picolm.cli.analyze import analyze
from picolm.cli.hub import app
from picolm.records.manifest import verify
from picolm.records.rundir import RunDirectory
from picolm.records.table import read_rows
from picolm.train.train import run_training
from tests.hub.conftest import REPO, SyncRun
from tests.hub.double import HubDouble
from tests.train.conftest import ConfigMaker
from tests.train.recording import Recording


@pytest.fixture
def pico(online: HubDouble, monkeypatch: pytest.MonkeyPatch, api: Any, tmp_path: Path):
    """`pico("push", ...)`: its result, talking to the double."""
    monkeypatch.setattr("picolm.hub.client.connect", lambda: api)
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(result.exception, PicoError):
            raise result.exception
        return result

    return call


def test_a_dry_run_lists_what_would_be_published_and_sends_nothing(pico, online: HubDouble, run: RunDirectory):
    result = pico("push", run.path, "--to", REPO, "--dry-run")
    assert result.exit_code == 0
    for wanted in (
        f"{REPO} (private if it is new)",
        "0, 10, 20",
        "model.safetensors",
        "learning_dynamics/val_batch.parquet",
        "run.json",
    ):
        assert wanted in result.output
    assert online.log == []
    assert not run.outbox.exists()


def test_publishing_needs_a_yes(pico, online: HubDouble, run: RunDirectory):
    with pytest.raises(PicoError, match="needs your word"):
        pico("push", run.path, "--to", REPO)
    assert online.log == []


def test_push_verify_pull_is_a_round_trip(pico, online: HubDouble, run: RunDirectory, tmp_path: Path):
    assert pico("push", run.path, "--to", REPO, "--yes").exit_code == 0
    assert pico("verify", f"{REPO}@tiny", run.path).exit_code == 0
    result = pico("pull", f"{REPO}@tiny", "--out", tmp_path / "back")
    assert result.exit_code == 0
    back = RunDirectory(tmp_path / "back")
    assert [verify(back.checkpoint(step)) for step in back.steps()] == [verify(run.checkpoint(step)) for step in run.steps()]
    assert "up to date" in pico("sync", run.path).output


def test_chosen_steps_and_parts_are_published_and_verify(pico, online: HubDouble, run: RunDirectory):
    pico("push", run.path, "--to", REPO, "--yes", "--steps", "0,20", "--parts", "learning_dynamics", "--public")
    repo = online.repos[REPO]
    assert not repo.private
    assert sorted(repo.tags) == ["tiny-step-0", "tiny-step-20"]
    assert not [path for path in repo.resolve("tiny").tree if path.startswith("training_state")]
    assert pico("verify", REPO).exit_code == 0


def test_verify_ends_with_an_error_code_and_names_the_step(pico, online: HubDouble, run: RunDirectory, tmp_path: Path):
    pico("push", run.path, "--to", REPO, "--yes")
    pico("verify", REPO, "--save", tmp_path / "before.json")
    tags = online.repos[REPO].tags
    tags["tiny-step-10"] = tags["tiny-step-20"]
    result = pico("verify", REPO, "--against", tmp_path / "before.json", "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)
    assert "step 10: changed since the earlier look" in report["problems"]


def test_what_is_not_there_is_said(pico, online: HubDouble, run: RunDirectory):
    with pytest.raises(PicoError, match="there is no checkpoint 11"):
        pico("push", run.path, "--to", REPO, "--dry-run", "--steps", "11")
    with pytest.raises(PicoError, match="is published nowhere"):
        pico("sync", run.path)
    with pytest.raises(PicoError, match="404"):
        pico("verify", "nobody/nothing")
    with pytest.raises(PicoError, match="is not a repository"):
        pico("push", run.path, "--to", "nothing", "--dry-run")


def test_without_a_token_the_queue_is_kept(pico, online: HubDouble, run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("picolm.hub.client.has_token", lambda: False)
    with pytest.raises(PicoError, match="no Hub token"):
        pico("push", run.path, "--to", REPO, "--yes")
    assert run.outbox_destination.is_file()


ANALYSIS = """
analysis_name: published
metrics: [{name: norm, norm_type: frobenius}]
components: [{name: simple, data_type: [%s], layer_suffixes: [attention.v_proj]}]
"""


@pytest.fixture
def published(pico, sync: SyncRun, make_config: ConfigMaker, tmp_path: Path) -> RunDirectory:
    """A run of five checkpoints that was really trained, on the Hub."""
    run_training(make_config("tiny"), Recording())
    trained = RunDirectory(tmp_path / "runs" / "tiny")
    sync(trained)
    return trained


def values(rows: pandas.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(rows[["step", "layer", "value"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("data_type", ["weights", "activations"])
def test_analyze_pulls_what_it_reads_of_a_published_run_and_no_more(
    published: RunDirectory, online: HubDouble, tmp_path: Path, data_type: str
):
    (tmp_path / "wanted.yaml").write_text(ANALYSIS % data_type + "steps: [1, 5]\n")
    analyze(f"{REPO}@tiny", str(tmp_path / "wanted.yaml"), out=tmp_path / "back")
    back = RunDirectory(tmp_path / "back")
    assert back.steps() == [1, 5]
    for step in back.steps():
        folder = back.checkpoint(step)
        assert (folder / "model.safetensors").exists() is (data_type == "weights")
        assert (folder / "learning_dynamics").exists() is (data_type == "activations")
        assert not (folder / "training_state").exists()
    analyze(str(published.path), str(tmp_path / "wanted.yaml"))
    assert values(read_rows(back.analysis("published"))) == values(read_rows(published.analysis("published")))


def test_analyze_of_a_tag_is_of_its_step(published: RunDirectory, tmp_path: Path):
    (tmp_path / "wanted.yaml").write_text(ANALYSIS % "weights")
    analyze(f"{REPO}@tiny-step-2", str(tmp_path / "wanted.yaml"), out=tmp_path / "back")
    assert set(read_rows(RunDirectory(tmp_path / "back").analysis("published"))["step"]) == {2}
    with pytest.raises(PicoError, match="is for what is pulled"):
        analyze(str(published.path), str(tmp_path / "wanted.yaml"), out=tmp_path / "back")


def test_an_analysis_of_a_series_of_plain_folders_is_sent_to_capture(pico, online: HubDouble, tmp_path: Path):
    (tmp_path / "wanted.yaml").write_text(ANALYSIS % "weights")
    online.create("lab/pythia", private=False)
    online.commit("lab/pythia", "step10", "add", {"model.safetensors": b"w", "config.json": b"{}"})
    with pytest.raises(PicoError, match="plain model folders") as caught:
        analyze("lab/pythia@step10", str(tmp_path / "wanted.yaml"))
    assert "pico capture" in caught.value.hint
