"""Publishing against the double: one commit and one tag per checkpoint, whatever the network does."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.hub.client import limit_silence
from picolm.hub.outbox import Destination, Outbox
from picolm.hub.survey import find_series
from picolm.hub.verify import verify_series
from picolm.records.manifest import read_manifest
from picolm.records.rundir import RunDirectory
from tests.hub.conftest import REPO, TOKEN, SyncRun, add_checkpoint, make_run
from tests.hub.double import Fault, HubDouble

COMMIT = r"/commit/"


def titles(hub: HubDouble, branch: str = "tiny") -> list[str]:
    return [commit.title for commit in reversed(hub.repos[REPO].history(branch))]


PUBLISHED = ["initial commit", "Checkpoint -- Step 0", "Checkpoint -- Step 10", "Checkpoint -- Step 20"]


def test_each_checkpoint_is_one_commit_and_one_tag_on_the_branch_of_the_run(online: HubDouble, run: RunDirectory, sync: SyncRun):
    assert sync(run) == 3
    repo = online.repos[REPO]
    assert repo.private
    assert titles(online) == PUBLISHED
    history = repo.history("tiny")
    assert repo.tags == {f"tiny-step-{step}": commit.sha for step, commit in zip((20, 10, 0), history, strict=False)}


def test_the_commit_of_a_step_holds_its_checkpoint_bit_for_bit(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    tree = online.repos[REPO].resolve("tiny-step-10").tree
    folder = run.checkpoint(10)
    for files in read_manifest(folder).parts.values():
        for name in files:
            assert tree[name].content == (folder / name).read_bytes()
    assert tree["manifest.json"].content == (folder / "manifest.json").read_bytes()
    index = json.loads(tree["index.json"].content)
    assert [row["step"] for row in index["series"]] == [0, 10]
    assert index["series"][1]["parent"] == index["series"][0]["manifest"]
    assert index["files"]["model.safetensors"]["sha256"] == tree["model.safetensors"].sha256
    assert index["files"]["config.json"]["git"] == tree["config.json"].oid
    assert {"evaluation/step_0.json", "evaluation/step_10.json", "run.json", "README.md"} <= set(tree)
    assert "evaluation/step_20.json" not in tree


def test_a_commit_holds_nothing_of_the_step_before_it(online: HubDouble, run: RunDirectory, sync: SyncRun):
    add_checkpoint(run, 30, None, dynamics=False)
    sync(run)
    paths = set(online.repos[REPO].resolve("tiny-step-30").tree)
    assert not [path for path in paths if path.startswith("learning_dynamics")]
    assert ".gitattributes" in paths


def test_syncing_again_sends_nothing(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    before = len(online.log)
    assert sync(run) == 0
    assert not [request for request in online.log[before:] if request.method in ("PUT", "POST")]


def test_a_lost_outbox_is_found_again_on_the_hub(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    state, puts = online.repos[REPO].state(), len(online.requests("PUT", "/upload/"))
    for path in run.outbox.iterdir():
        path.unlink()
    sync(run)
    assert online.repos[REPO].state() == state
    assert len(online.requests("PUT", "/upload/")) == puts


@pytest.mark.parametrize("kind", [500, 502, 503, 429, "drop"])
def test_failures_that_pass_are_waited_out(online: HubDouble, run: RunDirectory, sync: SyncRun, kind: Any):
    addresses = ["/repos/create", "/branch/", "/validate-yaml", "/preupload/", "/objects/batch", "/verify/", "/commit/", "/tag/"]
    online.faults += [Fault("POST", address, kind, count=2) for address in addresses]
    online.faults += [Fault("GET", address, kind, count=2) for address in ("/refs", "/tree/", "/commits/")]
    online.faults += [Fault("PUT", "/upload/", kind, count=2)]
    sync(run)
    assert not [fault for fault in online.faults if fault.count]
    assert titles(online) == PUBLISHED
    assert len(online.repos[REPO].tags) == 3


@pytest.mark.parametrize(
    ("method", "address"), [("POST", "/commit/"), ("POST", "/tag/"), ("POST", "/branch/"), ("POST", "/repos/create")]
)
def test_an_answer_lost_after_the_work_was_done_makes_no_duplicate(
    online: HubDouble, run: RunDirectory, sync: SyncRun, method: str, address: str
):
    online.faults.append(Fault(method, address, "lose", count=2))
    sync(run)
    assert titles(online) == PUBLISHED
    assert sorted(online.repos[REPO].tags) == ["tiny-step-0", "tiny-step-10", "tiny-step-20"]


def test_a_finished_file_is_sent_once_although_its_commit_fails(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.faults.append(Fault("POST", COMMIT, 503, count=4))
    sync(run)
    sent = [request.path for request in online.requests("PUT", "/upload/")]
    assert len(sent) == len(set(sent))


def test_the_wait_the_hub_asks_for_is_kept(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.faults.append(Fault("POST", COMMIT, 429, headers={"RateLimit": '"api";r=0;t=55'}))
    online.faults.append(Fault("POST", "/tag/", 429, headers={"Retry-After": "3600"}))
    sync(run)
    first, second = sync.slept
    assert 55 <= first < 66
    assert 3600 <= second < 3611


def test_waits_grow_and_are_not_the_same_for_all(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.faults.append(Fault("POST", COMMIT, 503, count=6))
    sync(run)
    assert all(2.0**n / 2 <= seconds <= 2.0**n for n, seconds in enumerate(sync.slept))
    assert len(set(sync.slept)) == 6


def test_the_branch_of_somebody_else_stops_the_upload_and_shows_both_heads(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    ours = online.repos[REPO].branches["tiny"]
    foreign = online.commit(REPO, "tiny", "I improved it", {"notes.txt": b"hello"})
    add_checkpoint(run, 30, None)
    with pytest.raises(PicoError) as caught:
        sync(run)
    assert foreign in str(caught.value)
    assert ours in str(caught.value)
    assert online.repos[REPO].branches["tiny"] == foreign
    assert sync(run, onto=foreign) == 1
    assert titles(online)[-2:] == ["I improved it", "Checkpoint -- Step 30"]


def test_a_branch_that_moves_between_reading_and_committing_is_left_alone(online: HubDouble, run: RunDirectory, sync: SyncRun):
    def somebody_commits(number: int, request: Any) -> None:
        if COMMIT in request.path and "preupload" not in request.path:
            online.before = lambda number, request: None
            online.commit(REPO, "tiny", "meanwhile", {"notes.txt": b"hello"})

    online.before = somebody_commits
    with pytest.raises(PicoError, match="has moved: it holds something that is not a published run"):
        sync(run)
    assert titles(online) == ["initial commit", "meanwhile"]


def test_two_uploaders_of_one_run_do_not_disturb_each_other(online: HubDouble, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    twin = RunDirectory(shutil.copytree(run.path, tmp_path / "twin" / "tiny"))

    def the_twin_is_faster(number: int, request: Any) -> None:
        if "/commit/tiny" in request.path:
            online.before = lambda number, request: None
            sync(twin)

    online.before = the_twin_is_faster
    sync(run)
    assert titles(online) == PUBLISHED
    assert [entry.commit for entry in Outbox(run).entries()] == [entry.commit for entry in Outbox(twin).entries()]


def test_another_run_of_the_same_name_is_not_continued(online: HubDouble, run: RunDirectory, sync: SyncRun, tmp_path):
    sync(run)
    other = make_run(tmp_path / "elsewhere" / "tiny", steps=(0, 20, 40), dynamics=False)
    with pytest.raises(PicoError, match="not the one of this run"):
        sync(other)


def test_a_tag_that_points_elsewhere_is_an_error(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.create(REPO)
    online.repos[REPO].tags["tiny-step-0"] = online.repos[REPO].branches["main"]
    with pytest.raises(PicoError, match="tag tiny-step-0 points to"):
        sync(run)


def test_a_damaged_checkpoint_is_not_published(online: HubDouble, run: RunDirectory, sync: SyncRun):
    path = run.checkpoint(0) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PicoError, match=r"model\.safetensors has changed"):
        sync(run)
    assert titles(online) == ["initial commit"]


def test_a_failure_that_does_not_pass_is_said_without_the_token(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.faults.append(Fault("POST", COMMIT, 403, count=9))
    with pytest.raises(PicoError, match="403") as caught:
        sync(run)
    assert TOKEN not in str(caught.value)
    assert sync.slept == []


def test_scores_that_come_later_are_published_without_a_new_checkpoint(online: HubDouble, run: RunDirectory, sync: SyncRun):
    from picolm.records.evaluation import Score, write_scores

    sync(run)
    write_scores(run, 20, 2000, [Score("blimp", "accuracy", 0.5)], {"blimp": {}})
    assert sync(run) == 0
    assert titles(online) == [*PUBLISHED, "Results"]
    assert b"blimp" in online.repos[REPO].resolve("tiny").tree["evaluation/step_20.json"].content
    sync(run)
    assert titles(online) == [*PUBLISHED, "Results"]
    add_checkpoint(run, 30, None)
    assert sync(run) == 1


def test_the_repository_joins_its_collection_once(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run, collection_slug="somebody/suites-64f9a55bb3115b4f513ec026")
    sync(run)
    assert online.collections == {"somebody/suites-64f9a55bb3115b4f513ec026": [REPO]}


def test_an_earlier_step_cannot_be_slipped_into_a_published_series(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    add_checkpoint(run, 15, None)
    with pytest.raises(PicoError, match="ends at step 20; step 15 cannot be put before it"):
        sync(run)


def test_only_the_chosen_parts_are_published(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run, parts=("weights",))
    tree = online.repos[REPO].resolve("tiny").tree
    assert "model.safetensors" in tree
    assert not [path for path in tree if path.startswith(("training_state", "learning_dynamics"))]


def test_large_files_are_addressed_by_their_content(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    for oid, content in online.objects.items():
        assert hashlib.sha256(content).hexdigest() == oid


def test_another_repository_begins_the_queue_again(online: HubDouble, run: RunDirectory, sync: SyncRun):
    sync(run)
    Outbox(run).address(Destination("somebody/other"))
    assert [entry.step for entry in Outbox(run).waiting()] == [0, 10, 20]


def page(hub: HubDouble) -> str:
    return hub.repos[REPO].resolve("main").tree["README.md"].content.decode()


def test_the_main_branch_shows_the_runs_of_the_repository(
    online: HubDouble, run: RunDirectory, sync: SyncRun, api: Any, tmp_path: Path
):
    sync(run)
    assert "[tiny](https://huggingface.co/somebody/suite/tree/tiny) | pico_decoder | 12 | 20 | 2,000 | 3 |" in page(online)
    assert 'from_pretrained("somebody/suite", revision="tiny-step-20")' in page(online)
    other = make_run(tmp_path / "other" / "second", steps=(0, 30), dynamics=False)
    sync(other)
    assert "tree/tiny)" in page(online)
    assert "tree/second) | pico_decoder | 12 | 30 | 3,000 | 2 |" in page(online)
    add_checkpoint(run, 40, None)
    sync(run)
    assert "tree/tiny) | pico_decoder | 12 | 40 | 4,000 | 4 |" in page(online)
    head = online.repos[REPO].branches["main"]
    sync(run)
    assert online.repos[REPO].branches["main"] == head
    assert [problem for series in find_series(api, REPO, None) for problem in verify_series(api, series).problems] == [
        "step 40: missing before it: its parent is not step 20"  # add_checkpoint gave it none
    ]


def test_a_page_written_by_hand_stays(online: HubDouble, run: RunDirectory, sync: SyncRun):
    online.create(REPO)
    head = online.commit(REPO, "main", "my page", {"README.md": b"# My models"})
    sync(run)
    assert online.repos[REPO].branches["main"] == head
    assert titles(online)[-1] == "Checkpoint -- Step 20"


def test_two_runs_that_write_the_page_at_once_are_both_on_it(online: HubDouble, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    other = make_run(tmp_path / "other" / "second", steps=(0,), dynamics=False)

    def the_other_is_faster(number: int, request: Any) -> None:
        if "/commit/main" in request.path:
            online.before = lambda number, request: None
            sync(other)

    online.before = the_other_is_faster
    sync(run)
    assert "tree/tiny)" in page(online)
    assert "tree/second)" in page(online)


def test_a_page_that_moves_on_while_a_branch_begins_is_no_conflict(online: HubDouble, run: RunDirectory, sync: SyncRun):
    def main_moves(number: int, request: Any) -> None:
        if "/branch/tiny" in request.path:
            online.after = lambda number, request: None
            online.commit(REPO, "main", "Runs of this repository", {"runs.json": b"{}"})

    online.after = main_moves
    assert sync(run) == 3


def test_requests_that_are_never_answered_are_made_again(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    limit_silence(0.3)
    online.faults += [Fault("GET", "/refs", "hang"), Fault("POST", "/commit/tiny", "hang"), Fault("PUT", "/upload/", "hang")]
    assert sync(run) == 3
    assert titles(online) == PUBLISHED
    assert not [fault for fault in online.faults if fault.count]


def test_an_hour_that_the_hub_asks_for_in_words_is_waited(online: HubDouble, run: RunDirectory, sync: SyncRun):
    words = b'{"error":"You have been rate limited; we reset your limits. You can retry this action in about 1 hour."}'
    online.faults.append(Fault("POST", "/commit/tiny", 429, body=words))
    sync(run)
    (slept,) = sync.slept
    assert 3600 <= slept < 3611
