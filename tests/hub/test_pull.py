"""Taking series back, from friendly and from hostile repositories."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from picolm.base.errors import PicoError
from picolm.hub.names import check_paths, check_repo_id, check_revision
from picolm.hub.patience import Patience
from picolm.hub.pull import Puller, Wanted
from picolm.hub.survey import find_series, one_series
from picolm.records.legacy import LegacyRun
from picolm.records.manifest import content as hash_of
from picolm.records.manifest import verify
from picolm.records.pulled import read_pulled
from picolm.records.rundir import RunDirectory
from picolm.report.inventory import find_run_damage
from tests.hub.conftest import REPO, SyncRun
from tests.hub.double import Blob, Fault, HubDouble


def pull(api: Any, out: Path, repo_id: str = REPO, revision: str | None = None, **wanted: Any) -> Path:
    series, step = one_series(find_series(api, repo_id, revision), repo_id, revision)
    steps = wanted.pop("steps", None if step is None else (step,))
    puller = Puller(api, Patience(attempts=3, sleep=lambda seconds: None), lambda sentence: None)
    return puller.pull(series, out, Wanted(steps=steps, **wanted))


def test_a_pulled_run_equals_the_published_one(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "back"))
    assert back.steps() == run.steps()
    for step in run.steps():
        assert verify(back.checkpoint(step)) == verify(run.checkpoint(step))
    assert back.identity()["config_hash"] == run.identity()["config_hash"]
    assert back.evaluated_steps() == [0, 10, 20]
    assert not [path for path in tmp_path.rglob("*") if ".tmp-" in path.name]


def test_only_what_is_asked_for_is_fetched(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "back", steps=(10,), parts=("weights",)))
    assert back.steps() == [10]
    assert not (back.checkpoint(10) / "learning_dynamics").exists()
    verify(back.checkpoint(10))
    other = RunDirectory(pull(api, tmp_path / "other", revision="tiny-step-20", parts=("learning_dynamics",)))
    assert other.steps() == [20]
    assert not (other.checkpoint(20) / "model.safetensors").exists()
    assert (other.checkpoint(20) / "config.json").is_file()


def test_a_commit_names_its_step_too(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "back", revision=online.repos[REPO].tags["tiny-step-10"]))
    assert back.steps() == [10]
    with pytest.raises(PicoError, match="holds no series of steps"):
        pull(api, tmp_path / "main", revision=online.repos[REPO].branches["main"])
    with pytest.raises(PicoError):
        pull(api, tmp_path / "none", revision="0" * 40)


def test_what_was_not_pulled_is_known_and_is_no_damage(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "back", steps=(10,), parts=("learning_dynamics",)))
    assert find_run_damage(back) == {10: []}
    pulled = read_pulled(back.checkpoint(10))
    assert set(pulled.absent) == {"model.safetensors", "training_state/optimizer.safetensors", "training_state/state.json"}
    verify(back.checkpoint(10), ["learning_dynamics"])
    with pytest.raises(PicoError, match=r"model\.safetensors was not pulled from somebody/suite@tiny") as caught:
        verify(back.checkpoint(10))
    assert "pico hub pull somebody/suite@tiny --steps 10" in caught.value.hint
    (back.checkpoint(10) / "config.json").unlink()
    assert find_run_damage(back) == {10: ["config.json is missing"]}


def test_a_later_pull_brings_the_rest_and_nothing_twice(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "back", steps=(10,), parts=("learning_dynamics",)))
    before = len(online.log)
    pull(api, tmp_path / "back", steps=(10,), parts=("weights",))
    fetched = [request.path for request in online.log[before:] if request.method == "GET" and "/blob/" in request.path]
    assert len(fetched) == 1
    assert find_run_damage(back) == {10: []}
    assert verify(back.checkpoint(10), ["weights", "learning_dynamics"]).step == 10
    pull(api, tmp_path / "back", steps=(10,))
    assert read_pulled(back.checkpoint(10)) is None
    assert verify(back.checkpoint(10)) == verify(run.checkpoint(10))


def test_a_checkpoint_pulled_in_part_is_not_published_as_whole(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    back = RunDirectory(pull(api, tmp_path / "tiny", steps=(10,), parts=("weights",)))
    (back.checkpoint(10) / "learning_dynamics").mkdir()  # not taken for one that retention removed
    with pytest.raises(PicoError, match="was not pulled"):
        sync(back, repo_id="somebody/other")


def test_an_interrupted_pull_goes_on_where_it_was(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    online.faults.append(Fault("GET", "/blob/", 503, skip=4, count=1000))
    with pytest.raises(PicoError, match="nothing is lost"):
        pull(api, tmp_path / "back")
    whole = RunDirectory(tmp_path / "back").steps()
    assert 0 < len(whole) < 3
    online.faults.clear()
    back = RunDirectory(pull(api, tmp_path / "back"))
    assert [verify(back.checkpoint(step)).step for step in back.steps()] == [0, 10, 20]


@pytest.mark.parametrize("size", [0, 7, 1 << 50])
def test_a_manifest_that_lies_about_a_size_is_refused(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path, size: int
):
    sync(run)
    tree = online.repos[REPO].resolve("tiny").tree
    manifest = json.loads(tree["manifest.json"].content)
    manifest["parts"]["weights"]["model.safetensors"]["bytes"] = size
    reseal(tree, manifest)
    with pytest.raises(PicoError, match=r"model\.safetensors has changed"):
        pull(api, tmp_path / "back", steps=(20,))
    assert RunDirectory(tmp_path / "back").steps() == []


def test_branches_with_hostile_names_are_never_folders(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    repo = online.repos[REPO]
    index = json.loads(repo.resolve("tiny").tree["index.json"].content) | {"run": "../../outside"}
    online.commit(REPO, "../../outside", "Checkpoint -- Step 20", {"index.json": json.dumps(index).encode()})
    with pytest.raises(PicoError):
        pull(api, tmp_path / "deep" / "back", revision="../../outside")
    with pytest.raises(PicoError, match="holds 2 series"):
        pull(api, tmp_path / "deep" / "back")
    assert not list(tmp_path.glob("outside*"))


def test_pulling_again_fetches_only_the_records(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    pull(api, tmp_path / "back")
    before = len(online.log)
    pull(api, tmp_path / "back")
    assert not [request for request in online.log[before:] if "/blob/" in request.path]


def test_a_corrupt_download_of_the_right_size_is_fetched_again(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    online.faults.append(Fault("GET", "/blob/", "corrupt"))
    back = RunDirectory(pull(api, tmp_path / "back"))
    for step in run.steps():
        assert verify(back.checkpoint(step)).step == step


def test_a_file_that_stays_corrupt_is_refused_and_leaves_nothing(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    online.faults.append(Fault("GET", "/blob/", "corrupt", count=100))
    with pytest.raises(PicoError, match="has changed: its hash is"):
        pull(api, tmp_path / "back")
    assert RunDirectory(tmp_path / "back").steps() == []
    assert not [path for path in (tmp_path / "back").rglob("*") if path.is_file()]


def test_broken_connections_are_continued(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    online.faults += [Fault("GET", "/blob/", 503), Fault("HEAD", "/resolve/", 503), Fault("GET", "/tree/", "drop")]
    assert RunDirectory(pull(api, tmp_path / "back")).steps() == [0, 10, 20]


def test_the_token_is_not_carried_to_another_host(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    sync(run)
    pull(api, tmp_path / "back")
    blobs = [request for request in online.log if request.host.startswith("localhost")]
    assert blobs
    assert not [request for request in blobs if "authorization" in request.headers]


def test_a_step_under_the_name_of_another_is_refused(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    tags = online.repos[REPO].tags
    tags["tiny-step-10"] = tags["tiny-step-20"]
    with pytest.raises(PicoError, match="is not step 10 of the series"):
        pull(api, tmp_path / "back", steps=(10,))


def test_another_run_is_not_mixed_into_a_folder(online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path):
    from tests.hub.conftest import make_run

    sync(run)
    other = make_run(tmp_path / "other", steps=(10,), dynamics=False)
    with pytest.raises(PicoError, match="holds another run"):
        pull(api, other.path)


HOSTILE = [
    "../outside.json",
    "/etc/outside.json",
    "learning_dynamics/../../outside.json",
    "..\\outside.json",
    "C:outside.json",
    "training_state/evil.pkl",
    "training_state/evil.py",
    "CON\x00.json",
    "a\u202etxt.json",
    "-rf.json",
    "CONFIG.json",
    "pulled.json",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_manifest_is_refused_before_anything_is_kept(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path, path: str
):
    sync(run)
    plant(online, path)
    with pytest.raises(PicoError):
        pull(api, tmp_path / "deep" / "back", steps=(20,))
    assert {entry.name for entry in tmp_path.iterdir()} <= {"runs", "deep", "hub-cache"}
    assert not [entry for entry in (tmp_path / "deep").rglob("*") if entry.is_file()]


def plant(hub: HubDouble, path: str) -> None:
    """A hostile owner: a file of that name in tree, manifest and index, with every hash right."""
    tree, planted = hub.repos[REPO].resolve("tiny").tree, Blob(pickle.dumps("evil"), False)
    record = {"bytes": len(planted.content), "sha256": planted.sha256}
    tree[path] = planted
    manifest = json.loads(tree["manifest.json"].content)
    manifest["parts"]["training_state"][path] = record
    reseal(tree, manifest, {path: record | {"git": planted.oid}})


def reseal(tree: dict[str, Blob], manifest: dict[str, Any], more: dict[str, Any] | None = None) -> None:
    """Another manifest in a commit, with every hash right."""
    manifest["seal"] = hash_of({name: value for name, value in manifest.items() if name != "seal"})
    blob = tree["manifest.json"] = Blob(json.dumps(manifest).encode(), False)
    index = json.loads(tree["index.json"].content)
    index["files"] |= more or {}
    index["files"]["manifest.json"] = {"bytes": len(blob.content), "sha256": blob.sha256, "git": blob.oid}
    index["series"][-1]["manifest"] = blob.sha256
    tree["index.json"] = Blob(json.dumps(index).encode(), False)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b'{"format": "picolm.index/1"}',
        b"[" * 100_000,
        b'{"format":"picolm.index/1","run":1,"series":[{}],"files":{}}',
    ],
)
def test_a_damaged_index_is_refused(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path, content: bytes
):
    sync(run)
    online.repos[REPO].resolve("tiny").tree["index.json"] = Blob(content, False)
    with pytest.raises(PicoError):
        pull(api, tmp_path / "back")


def test_files_that_are_no_data_are_never_asked_for(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    tree = online.repos[REPO].resolve("tiny").tree
    tree |= {"modeling_pico.py": Blob(b"raise SystemExit", False), "pytorch_model.bin": Blob(pickle.dumps("evil"), True)}
    back = pull(api, tmp_path / "back")
    assert not [request for request in online.log if ".py" in request.path or ".bin" in request.path]
    assert not list(back.rglob("*.py"))


def test_a_folder_behind_a_symbolic_link_is_refused(
    online: HubDouble, api: Any, run: RunDirectory, sync: SyncRun, tmp_path: Path
):
    sync(run)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PicoError, match="symbolic link"):
        pull(api, tmp_path / "link")


def test_a_series_of_the_original_trainer_becomes_the_folder_it_had(online: HubDouble, api: Any, tmp_path: Path):
    online.create("lab/decoder", private=False)
    online.repos["lab/decoder"].branches["tiny"] = online.repos["lab/decoder"].branches["main"]
    for step in (0, 1000):
        model = {"model.safetensors": b"weights %d" % step, "config.json": b"{}", "pico_decoder.py": b"raise SystemExit"}
        state = {"fabric_state/checkpoint.pt": b"pickle"}
        train = {"learning_dynamics/train_weights.pt": b"train %d" % step}
        val = {"learning_dynamics/val_weights.pt": b"val %d" % step}
        scores = {f"eval_results/step_{step}.json": b'{"paloma": 1}'}
        titles = [
            "HF Model",
            "Fabric Checkpoint",
            "Learning Dynamics Data (train)",
            "Learning Dynamics Data (val)",
            "Evaluation Results",
        ]
        for title, files in zip(titles, (model, state, train, val, scores), strict=True):
            online.commit("lab/decoder", "tiny", f"Saving {title} -- Step {step}", files)
    online.commit(
        "lab/decoder", "tiny", "Saving Training Config -- Step 1000", {"training_config.yaml": b"model: {d_model: 8}\n"}
    )
    back = LegacyRun(pull(api, tmp_path / "tiny", "lab/decoder", "tiny"))
    assert back.steps() == [0, 1000]
    assert back.config == {"model": {"d_model": 8}}
    for step in (0, 1000):
        folder = back.checkpoint(step)
        assert folder.weights.read_bytes() == b"weights %d" % step
        assert (folder.learning_dynamics / "train_weights.pt").read_bytes() == b"train %d" % step
        assert (folder.learning_dynamics / "val_weights.pt").read_bytes() == b"val %d" % step
        assert not (folder.path / "fabric_state").exists()
        assert not list(folder.path.rglob("*.py"))
    assert (tmp_path / "tiny" / "eval_results" / "step_1000.json").is_file()


def test_one_branch_per_step_becomes_one_folder_per_step(online: HubDouble, api: Any, tmp_path: Path):
    online.create("lab/pythia", private=False)
    for step in (0, 1000, 2000):
        online.repos["lab/pythia"].branches[f"step{step}"] = online.repos["lab/pythia"].branches["main"]
        files = {
            "model.safetensors": b"w%d" % step,
            "config.json": b"{}",
            "pytorch_model.bin": b"pickle",
            "onnx/model.onnx": b"x",
        }
        online.commit("lab/pythia", f"step{step}", "add", files)
    out = pull(api, tmp_path / "pythia", "lab/pythia", steps=(0, 2000))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "revisions.json",
        "step_0/config.json",
        "step_0/model.safetensors",
        "step_2000/config.json",
        "step_2000/model.safetensors",
    ]
    assert (
        pull(api, tmp_path / "one", "lab/pythia", "step1000").joinpath("step_1000", "model.safetensors").read_bytes() == b"w1000"
    )


def test_plain_model_folders_have_no_learning_dynamics_to_pull(online: HubDouble, api: Any, tmp_path: Path):
    online.create("lab/pythia", private=False)
    online.commit("lab/pythia", "step10", "add", {"model.safetensors": b"w", "config.json": b"{}"})
    with pytest.raises(PicoError, match="plain model folders, and no learning_dynamics"):
        pull(api, tmp_path / "pythia", "lab/pythia", parts=("learning_dynamics",))
    assert not (tmp_path / "pythia").exists()


def test_a_series_of_the_original_trainer_is_pulled_part_by_part(online: HubDouble, api: Any, tmp_path: Path):
    online.create("lab/decoder", private=False)
    online.commit("lab/decoder", "tiny", "Saving HF Model -- Step 0", {"model.safetensors": b"w", "config.json": b"{}"})
    val = {"learning_dynamics/val_weights.pt": b"val"}
    online.commit("lab/decoder", "tiny", "Saving Learning Dynamics Data (val) -- Step 0", val)
    out = pull(api, tmp_path / "tiny", "lab/decoder", "tiny", parts=("learning_dynamics",))
    folder = LegacyRun(out).checkpoint(0)
    assert (folder.path / "config.json").is_file()
    assert not folder.weights.exists()
    pull(api, out, "lab/decoder", "tiny")
    assert folder.weights.read_bytes() == b"w"
    folder.weights.write_bytes(b"mine")
    with pytest.raises(PicoError, match="is not the file that lab/decoder has"):
        pull(api, out, "lab/decoder", "tiny")
    assert folder.weights.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["", "name", "a/b/c", "../b", "a/..", "-x/y", "a/b\n", "a/b.git", "a /b", "a/b\u202e"])
def test_only_plain_repository_names_are_taken(name: str):
    with pytest.raises(PicoError):
        check_repo_id(name)


@pytest.mark.parametrize("name", ["", "-x", "../main", "a//b", "a.lock", "a b", "a\n", "/abs", "a/", "\u202ea"])
def test_only_plain_revisions_are_taken(name: str):
    with pytest.raises(PicoError):
        check_revision(name)


def test_two_names_that_differ_only_in_case_are_refused():
    with pytest.raises(PicoError, match="one file where case is ignored"):
        check_paths(["a/Model.json", "a/model.json"], "repository")
