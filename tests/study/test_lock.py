"""Locking: what is fixed, what makes a child version, what is found when something was changed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.study.conftest import InThisProcess, Notes, StudyMaker, study_content, write_study

from picolm.base.config import identity_hash
from picolm.base.errors import PicoError
from picolm.records.studydir import StudyDirectory, open_study_directory
from picolm.study.lock import find_lock, read_lock
from picolm.study.locking import lock_study, lock_to_run
from picolm.study.runner import run_study
from picolm.study.tamper import find_deviations, find_tampering
from picolm.testing.tiny import merged, training_content
from picolm.train.config import load_config


def test_every_place_is_resolved_as_the_trainer_would(make_study: StudyMaker) -> None:
    directory = make_study()
    lock = lock_study(directory).lock
    assert len(lock.cells) == 2 * 8 and {cell.phase for cell in lock.cells} == {"tuning", "confirm"}
    for cell in (lock.cells[0], lock.cells[-1]):
        config = load_config(directory.path / "tiny.yaml", cell.overrides)
        assert identity_hash(config) == cell.config_hash
    slow = lock.variants["slow"]
    assert slow.changes == {"training.optimization.lr": (0.01, 0.001)}
    assert slow.config["training.seeds.init"] == 1 and slow.config["training.optimization.weight_decay"] == 0.01
    assert lock.environment["threads"] == 1 and len(next(iter(lock.data.values()))["fingerprint"]) == 64


def test_streams_that_are_not_shared_differ_between_variants_and_are_the_same_every_time(make_study: StudyMaker) -> None:
    shared = lock_study(make_study("one", seeds={"confirm": [1, 2, 3], "share": ["init"]})).lock
    again = lock_study(make_study("two", seeds={"confirm": [1, 2, 3], "share": ["init"]})).lock

    def seeds(variant: str, stream: str) -> list[str]:
        prefix = f"training.seeds.{stream}="
        return [text for cell in shared.cells if cell.variant == variant for text in cell.overrides if text.startswith(prefix)]

    assert seeds("usual", "init") == seeds("slow", "init")
    assert not set(seeds("usual", "data")) & set(seeds("slow", "data"))
    assert len(set(seeds("slow", "data"))) == len(seeds("slow", "data")) == 5
    assert [cell.overrides for cell in shared.cells] == [cell.overrides for cell in again.cells]


def test_a_budget_in_tokens_sets_the_steps(make_study: StudyMaker) -> None:
    lock = lock_study(make_study(budget={"axis": "tokens", "value": 8 * 16 * 3 - 5})).lock
    assert {variant.config["training.max_steps"] for variant in lock.variants.values()} == {3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.optimization.learning_rate": 1}, "training.optimization.learning_rate is not a setting"),
        ({"training.optimization.lr_": "x2"}, "training.optimization.lr_ is not a setting"),
        ({"training.method": "relroa"}, "relroa"),
        ({"training.optimization.optimizer": "x2"}, "cannot be multiplied"),
    ],
)
def test_an_override_that_cannot_be_is_refused_with_the_name_of_the_variant(
    make_study: StudyMaker, settings: dict[str, object], message: str
) -> None:
    directory = make_study(variants={"odd": {"role": "control", "set": settings}})
    with pytest.raises(PicoError) as caught:
        lock_study(directory)
    assert message in caught.value.message and "variants.odd" in caught.value.message
    assert not directory.lock_file.exists()


def test_locking_twice_changes_nothing(make_study: StudyMaker) -> None:
    directory = make_study()
    first = lock_study(directory)
    before = directory.lock_file.read_bytes()
    second = lock_study(directory)
    assert first.written and not second.written and second.lock == first.lock
    assert directory.lock_file.read_bytes() == before


def test_a_change_before_any_run_makes_a_child_that_can_still_confirm(make_study: StudyMaker) -> None:
    directory = make_study()
    first = lock_study(directory).lock
    write_study(directory.path, predictions={"worse": {"at_least": 0.01}})
    outcome = lock_study(directory)
    assert outcome.written and outcome.lock.version == 2 and outcome.lock.parent == first.hash
    assert outcome.changes == ["predictions.worse.at_least: 0.0 -> 0.01"]
    assert outcome.lock.mode == "confirmatory"
    assert json.loads(directory.lock_version(1).read_text())["hash"] == first.hash


def test_a_changed_study_is_not_run_under_its_old_lock(make_study: StudyMaker) -> None:
    directory = make_study()
    lock_study(directory)
    write_study(directory.path, seeds={"confirm": [1, 2, 3, 4, 5, 7]})
    with pytest.raises(PicoError, match=r"seeds.confirm: \[1, 2, 3, 4, 5, 6\] -> \[1, 2, 3, 4, 5, 7\]") as caught:
        lock_to_run(directory)
    assert "pico study lock" in caught.value.hint


def test_data_seen_before_the_lock_force_the_exploratory_mode(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [91], "confirm": [1, 2, 3]})
    run_study(directory, lock_to_run(directory), InThisProcess(), Notes(), poll_seconds=0)
    write_study(directory.path, seeds={"tuning": [91], "confirm": [1, 2, 3]}, predictions={"worse": {"at_least": 0.3}})
    child = lock_study(directory).lock
    assert child.mode == "exploratory" and "6 run(s) were there before" in child.mode_reason
    assert {cell.run for cell in child.cells} == {cell.run for cell in read_lock(directory.lock_version(1)).cells}

    unlocked = make_study("unlocked", seeds={"confirm": [1, 2, 3]})
    unlocked.run("usual-seed-1").log_file.parent.mkdir(parents=True)
    unlocked.run("usual-seed-1").log_file.write_text("{}\n")
    assert lock_study(unlocked).lock.mode == "exploratory"


def test_tuning_runs_seen_before_a_child_version_do_not_count_as_data(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [91], "confirm": [1, 2, 3]})
    lock_study(directory)
    directory.run("usual-seed-91").log_file.parent.mkdir(parents=True)
    directory.run("usual-seed-91").log_file.write_text("{}\n")
    write_study(directory.path, seeds={"tuning": [91], "confirm": [1, 2, 3, 4]})
    assert lock_study(directory).lock.mode == "confirmatory"


def test_a_child_keeps_the_runs_that_stayed_the_same_and_names_the_others_anew(make_study: StudyMaker) -> None:
    directory = make_study(seeds={"tuning": [], "confirm": [1, 2, 3]})
    lock_study(directory)
    directory_again = write_study(
        directory.path,
        seeds={"tuning": [], "confirm": [1, 2, 3]},
        variants={"slow": {"set": {"training.optimization.lr": "x0.2"}}},
    )
    runs = {cell.run for cell in lock_study(directory_again).lock.cells}
    assert {"usual-seed-1", "slow-seed-1-v2"} < runs and "slow-seed-1" not in runs


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A study all of whose runs have ended."""
    folder = tmp_path_factory.mktemp("ended") / "study"
    folder.mkdir()

    content = merged(
        training_content(tiny_data, folder),
        {
            "training": {"max_steps": 3},
            "checkpointing": {"steps": [0], "learning_dynamics": {"enabled": False, "eval_data": None}},
        },
    )
    del content["checkpointing"]["runs_dir"], content["checkpointing"]["run_name"]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    grid = {"key": "training.optimization.lr", "grid": [1e-6, 0.01], "pick": "loss", "variants": ["usual"]}
    directory = write_study(folder, seeds={"tuning": [91], "confirm": [1, 2]}, tuning=grid)
    run_study(directory, lock_to_run(directory), InThisProcess(), Notes(), poll_seconds=0)
    return folder


@pytest.fixture
def tampered(ended: Path, tmp_path: Path) -> Callable[[Callable[[StudyDirectory], object]], list[str]]:
    """What is found after something was done to a copy of the ended study."""
    import shutil

    def found(wreck: Callable[[StudyDirectory], object]) -> list[str]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ended, copy)
        directory = open_study_directory(copy)
        wreck(directory)
        lock = find_lock(directory)
        assert lock is not None
        return find_tampering(directory, lock, weights=True)

    return found


Found = Callable[[Callable[[StudyDirectory], object]], list[str]]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_nothing_is_found_where_nothing_was_done(tampered: Found) -> None:
    assert tampered(lambda study: None) == []


def test_a_changed_seed_list_is_found_and_named(tampered: Found) -> None:
    assert tampered(lambda study: replace(study.definition, "- 2\n", "- 3\n")) == [
        "study.yaml: seeds.confirm was [1, 2] when it was locked, now it is [1, 3]"
    ]


def test_a_changed_prediction_is_found_and_named(tampered: Found) -> None:
    (sentence,) = tampered(lambda study: replace(study.definition, "direction: higher", "direction: lower"))
    assert sentence == 'study.yaml: predictions.worse.direction was "higher" when it was locked, now it is "lower"'


def test_a_changed_base_configuration_is_found_and_named(tampered: Found) -> None:
    assert tampered(lambda study: replace(study.path / "tiny.yaml", "max_steps: 3", "max_steps: 4")) == [
        "tiny.yaml: training.max_steps was 3 when it was locked, now it is 4"
    ]


def test_a_changed_log_is_found_and_named(tampered: Found) -> None:
    assert tampered(lambda study: replace(study.run("slow-seed-2").log_file, '"loss": 5', '"loss": 4')) == [
        "runs/slow-seed-2/logs/train.jsonl was changed after the run had ended"
    ]


def test_a_changed_identity_or_configuration_of_a_run_is_found_and_named(tampered: Found) -> None:
    sentences = tampered(lambda study: replace(study.run("slow-seed-2").identity_file, '"seed": 2', '"seed": 1'))
    assert sentences == [
        "runs/slow-seed-2/run.json was changed after the run had ended",
        "runs/slow-seed-2 says it is slow under seed 1",
    ]
    assert tampered(lambda study: replace(study.run("slow-seed-1").config_file, "lr: 0.001", "lr: 0.01")) == [
        "runs/slow-seed-1/training_config.yaml was changed after the run had ended"
    ]


def test_changed_weights_are_found_and_named(tampered: Found) -> None:
    def wreck(study: StudyDirectory) -> None:
        weights = study.run("slow-seed-1").checkpoint(3) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")

    (sentence,) = tampered(wreck)
    assert "slow-seed-1, step 3: model.safetensors has changed" in sentence


def test_a_run_put_in_the_place_of_another_is_found_and_named(tampered: Found) -> None:
    def swap(study: StudyDirectory) -> None:
        one, other = study.run("slow-seed-1").path, study.run("slow-seed-2").path
        one.rename(study.path / "aside")
        other.rename(one)
        (study.path / "aside").rename(other)

    sentences = tampered(swap)
    assert "runs/slow-seed-1 says it is slow under seed 2" in sentences
    assert "runs/slow-seed-1/logs/train.jsonl was changed after the run had ended" in sentences


def test_a_changed_receipt_and_a_changed_pick_are_found_and_named(tampered: Found) -> None:
    assert tampered(lambda study: replace(study.receipt("slow-seed-1"), '"step": 3', '"step": 2')) == [
        "receipts/slow-seed-1.json was changed: its hash is not that of its content"
    ]
    (sentence,) = tampered(lambda study: replace(study.tuning_file, '"value": 0.01', '"value": 1e-06'))
    assert sentence == "tuning.json: usual has 1e-06, the tuning runs give 0.01"


def test_a_changed_lock_is_found_and_named(tampered: Found, ended: Path) -> None:
    with pytest.raises(PicoError, match=r"study.lock.json was changed after it was written"):
        tampered(lambda study: replace(study.lock_file, '"mode": "confirmatory"', '"mode": "exploratory"'))

    def forge(study: StudyDirectory) -> None:
        lock = read_lock(study.lock_file)
        forged = lock.model_copy(update={"created": "2001-01-01T00:00:00+00:00"})
        forged = forged.model_copy(update={"hash": forged.computed_hash()})
        study.lock_file.write_text(forged.model_dump_json())

    sentences = tampered(forge)
    assert "study.lock.json is not version 1 as kept in locks" in sentences
    assert "runs/slow-seed-1 was not made under this lock or a version before it" in sentences


def test_other_code_and_strange_runs_are_deviations_without_being_tampering(ended: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(ended, tmp_path / "copy")
    directory = open_study_directory(tmp_path / "copy")
    lock = read_lock(directory.lock_file)
    (directory.runs / "stranger").mkdir()
    other = lock.model_copy(update={"code": {**lock.code, "version": "0.0.9"}})
    sentences = find_deviations(directory, other)
    assert any("made with other code than at the lock (0.0.9" in sentence for sentence in sentences)
    assert "runs that the study does not ask for, left out: stranger" in sentences


def test_a_folder_of_results_finds_its_study_again(make_study: StudyMaker, tmp_path: Path) -> None:
    directory = make_study()
    elsewhere = open_study_directory(directory.path, tmp_path / "results")
    lock_study(elsewhere)
    assert open_study_directory(tmp_path / "results") == elsewhere
    assert not directory.lock_file.exists()
    with pytest.raises(PicoError, match="is not a study") as caught:
        open_study_directory(tmp_path / "studie")
    assert "`study`" in caught.value.hint
    assert study_content()["id"] == "tiny-study"
