"""Publishing: a stand-in for the Hub client that keeps what it is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from picolm.base.errors import PicoError
from picolm.data import push
from picolm.data.prepare import PreparedData, PrepareSettings, prepare
from picolm.data.push import push_prepared


class Busy(Exception):
    """What an HTTP client raises on status 503."""

    response = SimpleNamespace(status_code=503, headers={})


class FakeHub:
    """Keeps files as the Hub would."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.failures: list[Exception] = []

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("dataset", True)

    def list_repo_tree(self, repo_id: str, *, repo_type: str, recursive: bool) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                path=name, lfs=SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if name.endswith(".parquet") else None
            )
            for name, content in self.files.items()
        ]

    def create_commit(self, repo_id: str, operations, *, commit_message: str, repo_type: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.commits.append([operation.path_in_repo for operation in operations])
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def prepared(tmp_path: Path, jsonl: Callable[..., Path], texts, tokenizer) -> PreparedData:
    settings = PrepareSettings(max_seq_len=15, rows_per_shard=200, val_share=0.1)
    return prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "data", settings=settings)


def test_everything_listed_arrives_and_the_manifest_last(prepared: PreparedData, monkeypatch):
    monkeypatch.setattr(push, "FILES_PER_COMMIT", 3)
    hub = FakeHub()
    assert push_prepared(prepared.path, "me/tokens", api=hub) == "hf://datasets/me/tokens"
    shards = [shard["name"] for facts in prepared.manifest["splits"].values() for shard in facts["shards"]]
    assert [name for commit in hub.commits[:-1] for name in commit] == shards
    assert hub.commits[-1][-1] == "manifest.json"
    for name in [*shards, "manifest.json", "tokenizer.json"]:
        assert hub.files[name] == (prepared.path / name).read_bytes()
    front = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
    assert front["configs"][0]["data_files"][1] == {"split": "validation", "path": "val/*.parquet"}


def test_a_push_that_broke_off_sends_only_the_rest(prepared: PreparedData, monkeypatch):
    monkeypatch.setattr(push, "FILES_PER_COMMIT", 3)
    hub = FakeHub()
    hub.failures = [Busy(), Busy()]
    pauses: list[float] = []
    push_prepared(prepared.path, "me/tokens", api=hub, sleep=pauses.append)
    assert pauses == [1.0, 2.0]
    gone = [name for name in hub.files if name.startswith("train/")][:2]
    for name in gone:
        del hub.files[name]
    hub.commits.clear()
    push_prepared(prepared.path, "me/tokens", api=hub)
    assert hub.commits[0] == gone
    assert len(hub.commits) == 2


def test_damaged_data_are_not_published_and_a_refusal_is_said(prepared: PreparedData):
    hub = FakeHub()
    hub.failures = [PermissionError("403 Forbidden")]
    with pytest.raises(PicoError, match="403 Forbidden"):
        push_prepared(prepared.path, "me/tokens", api=hub)
    (prepared.path / "tokenizer.json").unlink()
    with pytest.raises(PicoError, match=r"tokenizer\.json is missing"):
        push_prepared(prepared.path, "me/tokens", api=hub)
    assert "manifest.json" not in hub.files
