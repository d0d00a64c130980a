"""Proving a published series from hashes alone: ours, the original trainer's, and one branch per step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.hub.survey import find_series
from picolm.hub.verify import compare_with_report, compare_with_run, gaps, verify_series
from picolm.records.rundir import RunDirectory
from tests.hub.conftest import REPO, SyncRun, add_checkpoint, make_run
from tests.hub.double import Blob, HubDouble

PYTHIA = "lab/pythia"


def problems(api: Any, repo_id: str = REPO, revision: str | None = None) -> list[str]:
    return [problem for series in find_series(api, repo_id, revision) for problem in verify_series(api, series).problems]


def test_a_published_run_is_proved_equal_to_the_local_one(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    (series,) = find_series(api, REPO, "tiny")
    assert verify_series(api, series).problems == []
    assert compare_with_run(series, run) == []


def test_verifying_downloads_no_weights(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    before = len(online.log)
    problems(api)
    asked = [request.path for request in online.log[before:]]
    assert asked
    assert not [path for path in asked if "/blob/" in path or "safetensors" in path]


def test_a_moved_tag_is_found(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    tags = online.repos[REPO].tags
    tags["tiny-step-10"] = tags["tiny-step-20"]
    assert "step 10: changed: the tag tiny-step-10 does not point to the commit that published it" in problems(api)


def test_a_missing_tag_and_one_too_many_are_found(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    tags = online.repos[REPO].tags
    tags["tiny-step-15"] = tags.pop("tiny-step-10")
    assert {"step 10: missing: there is no tag tiny-step-10", "tag tiny-step-15: not in the index"} <= set(problems(api))


@pytest.mark.parametrize("path", ["model.safetensors", "config.json", "learning_dynamics/val_activations.safetensors"])
def test_a_changed_file_is_found_by_name(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, path: str):
    sync(run)
    tree = online.repos[REPO].resolve("tiny-step-10").tree
    content = tree[path].content
    tree[path] = Blob(content[:-1] + bytes([content[-1] ^ 1]), tree[path].large)
    assert problems(api) == [f"step 10: changed: {path} is not what the index says"]


def test_swapped_steps_are_found(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    repo = online.repos[REPO]
    first, second = repo.resolve("tiny-step-0").tree, repo.resolve("tiny-step-10").tree
    first["model.safetensors"], second["model.safetensors"] = second["model.safetensors"], first["model.safetensors"]
    found = problems(api)
    assert "step 0: changed: model.safetensors is not what the index says" in found
    assert "step 10: changed: model.safetensors is not what the index says" in found


def test_a_row_taken_out_of_the_index_is_missed_by_its_child(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun):
    sync(run)
    tree = online.repos[REPO].resolve("tiny").tree
    index = json.loads(tree["index.json"].content)
    del index["series"][1]
    tree["index.json"] = Blob(json.dumps(index).encode(), False)
    assert "step 20: missing before it: its parent is not step 0" in problems(api)


def test_local_steps_that_differ_are_named(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path):
    sync(run)
    add_checkpoint(run, 30, None)
    (series,) = find_series(api, REPO, "tiny")
    assert compare_with_run(series, run) == ["step 30: missing on the Hub"]
    other = make_run(tmp_path / "other" / "tiny", steps=(0, 20), dynamics=False)
    found = compare_with_run(series, other)
    assert f"step 10: missing in {other.path}" in found
    assert f"step 20: changed: not the one of {other.path}" in found


def pythia(hub: HubDouble, steps: dict[str, bytes], main: bytes = b"final") -> None:
    hub.create(PYTHIA, private=False)
    for branch, weights in steps.items():
        hub.repos[PYTHIA].branches[branch] = hub.repos[PYTHIA].branches["main"]
        hub.commit(PYTHIA, branch, f"add {branch}", {"model.safetensors": weights, "config.json": b"{}"})
    hub.commit(PYTHIA, "main", "final", {"model.safetensors": main, "config.json": b"{}"})


def test_branches_that_serve_final_weights_are_found(online: HubDouble, api: Any):
    pythia(online, {"step1000": b"1", "step2000": b"final", "step3000": b"final", "step4000": b"4", "step5000": b"final"})
    assert problems(api, PYTHIA) == [
        "steps 2000, 3000, 5000: duplicate: the same weights",
        "step(s) 2000, 3000: changed: they serve the weights of the main branch",
    ]


def test_missing_steps_of_an_even_series_are_found(online: HubDouble, api: Any):
    pythia(online, {f"step{step}-tokens{step // 100}B": str(step).encode() for step in (1, 2, 4, 1000, 2000, 3000, 6000, 7000)})
    assert problems(api, PYTHIA) == ["step(s) 4000, 5000: missing between 3000 and 6000"]


def test_a_series_of_powers_of_two_has_no_gaps():
    assert gaps([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000, 4000]) == []


def test_token_counts_out_of_order_are_found(online: HubDouble, api: Any):
    pythia(online, {"stage1-step1000-tokens9B": b"1", "stage1-step2000-tokens4B": b"2"})
    assert problems(api, PYTHIA) == [
        "step 2000: out of order: stage1-step2000-tokens4B tells fewer tokens than stage1-step1000-tokens9B"
    ]


def test_a_branch_without_weights_is_found(online: HubDouble, api: Any):
    pythia(online, {"step1000": b"1", "step2000": b"2"})
    del online.repos[PYTHIA].resolve("step2000").tree["model.safetensors"]
    assert problems(api, PYTHIA) == ["step 2000: missing: step2000 holds no weights"]


def original(hub: HubDouble, saves: list[tuple[int, bytes]]) -> None:
    hub.create("lab/decoder", private=False)
    hub.repos["lab/decoder"].branches["tiny"] = hub.repos["lab/decoder"].branches["main"]
    for step, weights in saves:
        hub.commit("lab/decoder", "tiny", f"Saving HF Model -- Step {step}", {"model.safetensors": weights, "config.json": b"{}"})


def test_commit_titles_of_the_original_trainer_are_a_series(online: HubDouble, api: Any):
    original(online, [(0, b"0"), (1000, b"1"), (2000, b"2")])
    (series,) = find_series(api, "lab/decoder", "tiny")
    assert (series.kind, [step.step for step in series.steps]) == ("original", [0, 1000, 2000])
    assert problems(api, "lab/decoder") == []


def test_a_series_of_the_original_trainer_with_faults_says_which(online: HubDouble, api: Any):
    original(online, [(0, b"0"), (2000, b"2"), (1000, b"1"), (3000, b"1"), (3000, b"3"), (4000, b"1")])
    found = problems(api, "lab/decoder")
    assert "step 1000: out of order: saved after step 2000" in found
    assert any(problem.startswith("step 3000: saved twice") for problem in found)
    assert "steps 1000, 4000: duplicate: the same weights" in found


def test_a_later_look_sees_what_has_changed(online: HubDouble, api: Any):
    pythia(online, {"step1000": b"1", "step2000": b"2", "step3000": b"3"})
    (series,) = find_series(api, PYTHIA, None)
    before = verify_series(api, series).to_json()
    online.commit(PYTHIA, "step2000", "oops", {"model.safetensors": b"other"})
    del online.repos[PYTHIA].branches["step3000"]
    (series,) = find_series(api, PYTHIA, None)
    found = compare_with_report(verify_series(api, series), before)
    assert found == ["step 3000: missing since the earlier look", "step 2000: changed since the earlier look"]


def test_many_branches_and_commits_are_read_page_by_page(online: HubDouble, api: Any):
    original(online, [(step, str(step).encode()) for step in range(120)])
    (series,) = find_series(api, "lab/decoder", "tiny")
    assert len(series.steps) == 120


def test_a_repository_without_steps_is_said_to_have_none(online: HubDouble, api: Any):
    online.create("lab/empty", private=False)
    with pytest.raises(PicoError, match="holds no series of steps"):
        find_series(api, "lab/empty", None)


def test_a_repository_of_very_many_branches_asks_for_a_name(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, monkeypatch: pytest.MonkeyPatch
):
    sync(run)
    repo = online.repos[REPO]
    repo.branches |= {f"topic-{number}": repo.branches["main"] for number in range(300)}
    with pytest.raises(PicoError, match="302 branches to look at"):
        find_series(api, REPO, None)
    before = len(online.log)
    for revision in ("tiny", "tiny-step-10"):
        (series,) = find_series(api, REPO, revision)
        assert (series.kind, series.name) == ("pico", "tiny")
    assert len(online.log) - before < 12
    monkeypatch.setattr("picolm.hub.remote.MOST_REFS", 100)
    with pytest.raises(PicoError, match="more than 100 branches and tags"):
        find_series(api, REPO, "tiny")
