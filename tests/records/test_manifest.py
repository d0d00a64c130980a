from __future__ import annotations

import json
from pathlib import Path

import pytest

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.manifest import Manifest, find_damage, read_manifest, sealed_folder, sealed_steps, verify

FACTS = Manifest(step=3, tokens=96, parent=None, config_hash="c")


def seal(folder: Path) -> Path:
    with sealed_folder(folder, FACTS) as temporary:
        (temporary / "model.safetensors").write_bytes(b"weights")
        (temporary / "training_state").mkdir()
        (temporary / "training_state" / "state.json").write_text("{}")
    return folder


def test_a_sealed_folder_lists_every_file_by_part_with_its_hash(tmp_path: Path):
    import hashlib

    manifest = verify(seal(tmp_path / "step_3"))
    assert manifest.parts["weights"]["model.safetensors"].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert set(manifest.parts) == {"weights", "training_state"}
    assert (manifest.step, manifest.tokens, manifest.bytes) == (3, 96, 9)


def test_an_error_while_filling_leaves_nothing(tmp_path: Path):
    with pytest.raises(RuntimeError), sealed_folder(tmp_path / "step_3", FACTS) as temporary:
        (temporary / "model.safetensors").write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_folder_is_never_rewritten(tmp_path: Path):
    seal(tmp_path / "step_3")
    with pytest.raises(PicoError, match="sealed already"):
        seal(tmp_path / "step_3")


def test_a_folder_without_a_manifest_does_not_exist_and_is_replaced(tmp_path: Path):
    (tmp_path / "step_3").mkdir()
    (tmp_path / "step_3" / "model.safetensors").write_bytes(b"torn")
    assert sealed_steps(tmp_path) == []
    seal(tmp_path / "step_3")
    assert sealed_steps(tmp_path) == [3]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b"weightz"), "has changed"),
        (lambda file: file.write_bytes(b"w"), "1 bytes instead of 7"),
        (lambda file: file.unlink(), "is missing"),
        (lambda file: (file.parent / "extra.bin").write_bytes(b""), "not in the manifest"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str):
    folder = seal(tmp_path / "step_3")
    damage(folder / "model.safetensors")
    with pytest.raises(PicoError, match=message):
        verify(folder)


def test_one_flipped_bit_in_any_file_is_found(tmp_path: Path):
    folder = seal(tmp_path / "step_3")
    for name in ("model.safetensors", "training_state/state.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        assert find_damage(folder, read_manifest(folder)) == [f"{name} has changed: its SHA-256 is not that of the manifest"]
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("field", ["format", "step", "tokens", "parent", "config_hash", "data_fingerprint", "parts", "seal"])
def test_a_changed_field_of_the_manifest_itself_is_found(tmp_path: Path, field: str):
    folder = seal(tmp_path / "step_3")
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    facts[field] = {"weights": {}} if field == "parts" else 5 if isinstance(facts[field], int) else "another"
    path.write_text(json.dumps(facts))
    with pytest.raises(PicoError, match=r"changed since it was sealed|another format"):
        read_manifest(folder)


def test_every_flipped_bit_of_the_manifest_is_found(tmp_path: Path):
    folder = seal(tmp_path / "step_3")
    path = folder / "manifest.json"
    before, whole = path.read_bytes(), read_manifest(folder)
    for place in range(len(before)):
        for bit in range(8):
            path.write_bytes(before[:place] + bytes([before[place] ^ 1 << bit]) + before[place + 1 :])
            try:
                same = read_manifest(folder) == whole  # white space between values may differ: nothing is changed by it
            except PicoError:
                continue
            assert same, f"bit {bit} of byte {place}"


def test_checkpoints_that_changed_places_are_found(tmp_path: Path):
    folder = seal(tmp_path / "step_3")
    folder.rename(tmp_path / "step_4")
    with pytest.raises(PicoError, match="step 3, misplaced"):
        verify(tmp_path / "step_4")


def test_a_part_removed_as_a_whole_is_not_damage(tmp_path: Path):
    folder = seal(tmp_path / "step_3")
    (folder / "training_state" / "state.json").unlink()
    (folder / "training_state").rmdir()
    assert "training_state" in verify(folder).parts


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "C:evil", "a\\b"])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, name: str):
    folder = seal(tmp_path / "step_3")
    content = json.loads((folder / "manifest.json").read_text())
    content["parts"]["weights"][name] = {"bytes": 0, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(PicoError, match="outside its folder"):
        read_manifest(folder)


def test_a_manifest_cut_short_is_refused_by_name(tmp_path: Path):
    folder = seal(tmp_path / "step_3")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(PicoError, match=r"manifest\.json is damaged"):
        read_manifest(folder)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "value.json"
    durable.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        durable.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]
