"""A secret that is planted anywhere appears nowhere: in no request, log, card or file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from picolm.base.errors import PicoError
from picolm.hub.card import draw_curve, write_card
from picolm.hub.names import branch_of
from picolm.hub.secrecy import find_secret, redacted, without_places
from picolm.hub.series import Index, Published
from picolm.records.manifest import Manifest, sealed_folder
from picolm.records.rundir import RunDirectory
from tests.hub.conftest import REPO, TOKEN, SyncRun
from tests.hub.double import Fault, HubDouble

SECRETS = {
    "hf": "hf_" + "AbCdEfGhIj" * 3 + "Klmn",
    "github": "ghp_" + "a1B2c3D4e5" * 4,
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "openai": "sk-proj-" + "abcdefghij" * 3,
    "address": "https://alice:pa55word@example.org/data",
    "key": "-----BEGIN RSA PRIVATE KEY-----",
}


def everything_sent(hub: HubDouble) -> bytes:
    """All that ever left this machine, except the header that the token belongs in."""
    heads = [json.dumps({k: v for k, v in request.headers.items() if k.lower() != "authorization"}) for request in hub.log]
    return b"".join([*(request.path.encode() + request.body for request in hub.log), *(head.encode() for head in heads)])


def everything_written(folder: Path, *but: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in but)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_the_configuration_stops_the_upload_before_anything_is_sent(
    online: HubDouble, run: RunDirectory, sync: SyncRun, secret: str
):
    run.config_file.write_text(f"monitoring:\n  wandb:\n    entity: {secret}\n")
    with pytest.raises(PicoError, match=r"training_config\.yaml holds .* line 3") as caught:
        sync(run)
    assert secret not in str(caught.value)
    assert secret.encode() not in everything_sent(online)
    assert secret.encode() not in everything_written(run.path, run.config_file)
    assert not online.requests("POST", "/commit/")


def test_a_secret_in_a_text_file_of_a_checkpoint_stops_the_upload(online: HubDouble, run: RunDirectory, sync: SyncRun):
    seal(run, 30, {"notes.txt": f"my token is {SECRETS['hf']}".encode()})
    with pytest.raises(PicoError, match=r"notes\.txt holds what looks like a Hugging Face token in line 1"):
        sync(run)
    assert SECRETS["hf"].encode() not in everything_sent(online)
    assert sorted(online.repos[REPO].tags) == ["tiny-step-0", "tiny-step-10", "tiny-step-20"]


def test_a_secret_in_the_text_of_a_captured_batch_stops_the_upload(
    online: HubDouble, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    table = pyarrow.table({"input_ids": [[1]], "text": [f"the key {SECRETS['github']}"]})
    pyarrow.parquet.write_table(table, tmp_path / "batch.parquet", compression="zstd")
    seal(run, 30, {"val_batch.parquet": (tmp_path / "batch.parquet").read_bytes()})
    with pytest.raises(PicoError, match=r"val_batch\.parquet holds what looks like a GitHub token in line 1 of the column text"):
        sync(run)


def test_a_secret_of_the_environment_is_found_wherever_it_is(
    online: HubDouble, run: RunDirectory, sync: SyncRun, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    sync(run)
    assert b"0123456789abcdef0123" not in everything_sent(online)
    assert b"0123456789abcdef0123" not in everything_written(run.path)
    seal(run, 30, {"notes.txt": b"key 0123456789abcdef0123456789abcdef01234567"})
    with pytest.raises(PicoError, match=r"notes\.txt holds the value of \$WANDB_API_KEY in line 1"):
        sync(run)


def test_a_secret_in_the_header_of_a_tensor_file_is_found(tmp_path: Path):
    import numpy

    save_file({"w": numpy.zeros(3)}, tmp_path / "w.safetensors", metadata={"note": SECRETS["hf"]})
    assert find_secret(tmp_path / "w.safetensors") == "what looks like a Hugging Face token in line 1"


def test_the_token_is_sent_as_a_header_and_nowhere_else(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.faults.append(Fault("POST", "/commit/", 503, count=2))
    sync(run)
    assert any(TOKEN in request.headers.get("authorization", "") for request in online.log)
    assert TOKEN.encode() not in everything_sent(online)
    assert TOKEN.encode() not in everything_written(run.path)
    assert TOKEN not in "".join(sync.said)


def test_messages_lose_their_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_SECRET", "correct-horse-battery")
    text = redacted(f"failed with correct-horse-battery and {SECRETS['hf']} at {SECRETS['address']}")
    assert text == "failed with [removed] and [removed] at https[removed]example.org/data"


def test_local_places_are_cut_to_their_last_name():
    text = (
        'name: /home/alice/corpora/books, "C:\\\\Users\\\\alice\\\\data", ~/runs/demo, owner/name, 1/2, https://example.org/a/b'
    )
    assert without_places(text) == 'name: books, "data", demo, owner/name, 1/2, https://example.org/a/b'


def test_published_files_and_card_name_no_user_path_or_machine(online: HubDouble, run: RunDirectory, sync: SyncRun, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "secret-cluster-7")
    identity = run.identity()
    run.write_identity(
        identity | {"history": [{"changes": {"runs_dir": ["/home/alice/runs", "/scratch/alice/x"]}, "host": "secret-cluster-7"}]}
    )
    sync(run)
    sent = everything_sent(online) + b"".join(
        blob.content for commit in online.repos[REPO].commits.values() for blob in commit.tree.values()
    )
    assert b"alice" not in sent
    assert b"secret-cluster-7" not in sent
    assert str(run.path).encode() not in sent


def test_the_card_says_what_the_run_is_and_how_to_load_a_step(run: RunDirectory):
    rows = tuple(Published(step, step * 100, f"tiny-step-{step}", "m" * 64, None) for step in (0, 10, 20))
    text = write_card(run, 20, Index("tiny", rows), REPO, with_curve=True)
    for wanted in (
        "pico_decoder model of 12 parameters",
        "f" * 64,
        'from_pretrained("somebody/suite", revision="tiny-step-20")',
        "| 20 | 80 |",
        "training_curve.png",
        "2509.16413",
        "pico hub verify somebody/suite",
        "d_model: 2",
    ):
        assert wanted in text
    assert text.startswith("---\nlibrary_name:")


def test_what_others_wrote_cannot_become_markup_in_the_card(run: RunDirectory):
    run.write_identity(run.identity() | {"data": {"name": "x` | <script>alert(1)</script>"}})
    text = write_card(run, 0, Index("tiny", ()), REPO, with_curve=False)
    assert "<script>" not in text


def test_the_curve_is_a_picture_of_the_log():
    picture = draw_curve([{"tokens": n, "loss": 1 / n} for n in range(1, 5)])
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert draw_curve([{"tokens": 1, "loss": None}]) is None


@pytest.mark.parametrize("name", ["main", "HEAD", "tiny-step-10", "a" * 40, "x.lock", "../x"])
def test_names_that_mean_something_else_on_the_hub_are_refused(name: str):
    with pytest.raises(PicoError):
        branch_of(name)


def seal(run: RunDirectory, step: int, files: dict[str, bytes], **manifest: Any) -> None:
    with sealed_folder(run.checkpoint(step), Manifest(step, 0, None, "c")) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
