"""Training with uploads on: whatever the Hub does, the run is the same, and its loop waits for nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.hub import background
from picolm.hub.outbox import Outbox
from picolm.hub.survey import find_series
from picolm.hub.verify import compare_with_run, verify_series
from picolm.records.rundir import RunDirectory
from picolm.train.train import run_training
from tests.hub.conftest import REPO, TOKEN, SyncRun
from tests.hub.double import Fault, HubDouble
from tests.hub.test_secrets import everything_sent, everything_written
from tests.train.conftest import ConfigMaker
from tests.train.recording import Recording, file_hashes

STEPS = [0, 1, 2, 5, 8]
PLANTED = "hf_" + "AbCdEfGhIj" * 3 + "Klmn"
PUBLISHED = {"save_to_hf": True, "hf_checkpoint": {"repo_id": REPO}}


@pytest.fixture
def uploader_environment(online: HubDouble, monkeypatch: pytest.MonkeyPatch) -> HubDouble:
    """What the uploader's process finds: the double as its Hub."""
    for name, value in {"HF_ENDPOINT": online.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return online


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connections that this process tries to make; each is an error."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise AssertionError(f"the training connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def hashes(runs: Path, name: str) -> dict[int, dict[str, str]]:
    return {step: file_hashes(runs / name, step) for step in STEPS}


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


class AfterLoop(Recording):
    """Holds the loop before its last step until the uploader has been seen at the Hub."""

    def __init__(self, seen: Callable[[], object]) -> None:
        super().__init__()
        self._seen = seen

    def advance(self, step: int) -> None:
        if step == 7:
            wait_for(self._seen)


def test_uploads_through_a_bad_network_leave_the_run_as_it_is(
    uploader_environment: HubDouble, make_config: ConfigMaker, no_network: list[Any], tmp_path: Path
):
    hub = uploader_environment
    hub.faults += [
        Fault("GET", "/refs", 503),
        Fault("POST", "/repos/create", "lose"),
        Fault("POST", "/commit/", 429, headers={"Retry-After": "1"}),
        Fault("PUT", "/upload/", "drop", count=2),
        Fault("POST", "/commit/tiny", "lose", skip=1),
        Fault("POST", "/tag/", 500),
    ]
    observer = AfterLoop(lambda: hub.repos.get(REPO) and hub.repos[REPO].branches.get("tiny"))
    run_training(make_config("tiny", checkpointing=PUBLISHED), observer)
    run_training(make_config("alone"), Recording())
    assert hashes(tmp_path / "runs", "tiny") == hashes(tmp_path / "runs", "alone")
    assert no_network == []
    assert any("publishing every checkpoint" in sentence for sentence in observer.sentences)


def test_what_a_training_left_in_the_outbox_is_published_by_a_later_sync(
    uploader_environment: HubDouble, make_config: ConfigMaker, sync: SyncRun, api: Any, tmp_path: Path
):
    hub = uploader_environment
    hub.faults.append(Fault("POST", "/commit/tiny", 503, count=1000))
    run_training(make_config("tiny", checkpointing=PUBLISHED), observer := Recording())
    assert "pico hub sync" in observer.sentences[-1]
    hub.faults.clear()
    run = RunDirectory(tmp_path / "runs" / "tiny")
    assert [entry.step for entry in Outbox(run).waiting()] == STEPS
    sync(run)
    assert sorted(hub.repos[REPO].tags) == [f"tiny-step-{step}" for step in STEPS]
    (series,) = find_series(api, REPO, "tiny")
    assert verify_series(api, series).problems == []
    assert compare_with_run(series, run) == []


def test_a_hub_that_never_answers_takes_no_time_of_the_loop(
    uploader_environment: HubDouble,
    make_config: ConfigMaker,
    no_network: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    hub = uploader_environment
    hub.faults.append(Fault("GET", "", "hang", count=1000))
    kept: list[background.Publication] = []

    class Watched(background.Publication):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, closing_seconds=0.5, **settings)
            kept.append(self)

    monkeypatch.setattr("picolm.train.publication.Publication", Watched)
    run_training(make_config("tiny", checkpointing=PUBLISHED), observer := AfterLoop(lambda: hub.log))
    run_training(make_config("alone"), Recording())
    assert hub.log, "the uploader asked, and got no answer"
    assert no_network == []
    assert kept[0].training_seconds < 1.0, "notes on disk only"
    assert "5 checkpoint(s) wait in the outbox" in observer.sentences[-1]
    assert hashes(tmp_path / "runs", "tiny") == hashes(tmp_path / "runs", "alone")


def test_without_a_token_uploads_wait_and_that_is_said_once(
    uploader_environment: HubDouble, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("picolm.hub.background.has_token", lambda: False)
    run_training(make_config("tiny", checkpointing=PUBLISHED), observer := Recording())
    assert [sentence for sentence in observer.sentences if "token" in sentence] == [
        f"no Hub token: checkpoints for {REPO}, branch tiny wait in the outbox; later: pico hub sync {tmp_path / 'runs' / 'tiny'}"
    ]
    assert uploader_environment.log == []
    assert [entry.step for entry in Outbox(RunDirectory(tmp_path / "runs" / "tiny")).waiting()] == STEPS


def test_uploads_without_a_repository_are_an_error_before_anything_is_written(make_config: ConfigMaker, tmp_path: Path):
    with pytest.raises(PicoError, match=r"checkpointing\.hf_checkpoint\.repo_id is empty"):
        run_training(make_config("tiny", checkpointing={"save_to_hf": True}), Recording())
    assert not (tmp_path / "runs").exists()


LOAD = """
import sys
from safetensors.torch import load_file
from torch import equal
from transformers import AutoModelForCausalLM, AutoTokenizer

repo, revision, folder = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(repo, revision=revision)
local = AutoModelForCausalLM.from_pretrained(folder)
there, here = model.state_dict(), local.state_dict()
assert there.keys() == here.keys() and all(equal(there[name], here[name]) for name in here)
assert AutoTokenizer.from_pretrained(repo, revision=revision).encode("the cat") != []
print(type(model).__name__)
"""


def test_other_tools_load_a_step_by_its_tag(
    uploader_environment: HubDouble, make_config: ConfigMaker, sync: SyncRun, tmp_path: Path
):
    pytest.importorskip("transformers")
    run_training(make_config("tiny"), Recording())
    run = RunDirectory(tmp_path / "runs" / "tiny")
    sync(run)
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, "tiny-step-5", str(run.checkpoint(5))],
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "LlamaForCausalLM"


def test_a_secret_in_environment_configuration_and_text_appears_nowhere(
    uploader_environment: HubDouble, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    hub, key = uploader_environment, "0123456789abcdef" * 2
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(PicoError, match=r"monitoring\.wandb\.entity holds what looks like a Hugging Face token") as caught:
        run_training(make_config("tiny", monitoring={"wandb": {"entity": PLANTED}}), Recording())
    assert PLANTED not in str(caught.value)
    with pytest.raises(PicoError, match=r"monitoring\.wandb\.project holds the value of \$WANDB_API_KEY"):
        run_training(make_config("tiny", monitoring={"wandb": {"project": key}}), Recording())
    assert not (tmp_path / "runs").exists()
    run_training(make_config("tiny", checkpointing=PUBLISHED), observer := Recording())
    run = RunDirectory(tmp_path / "runs" / "tiny")
    planted = run.checkpoint(8) / "notes.txt"  # beside what was sealed: somebody's own file
    planted.write_text(PLANTED)
    (run.path / "notes.txt").write_text(f"{PLANTED} {key}")
    wait_for(lambda: len(hub.repos[REPO].tags) == 5)
    sent = everything_sent(hub)
    written = everything_written(run.path, planted, run.path / "notes.txt")
    card = hub.repos[REPO].resolve("tiny").tree["README.md"].content + hub.repos[REPO].resolve("main").tree["README.md"].content
    for secret in (PLANTED, key, TOKEN):
        assert secret.encode() not in sent + written + card
        assert secret not in "".join(observer.sentences)
    assert run.outbox_log.is_file(), "the uploader's log was among what was searched"
