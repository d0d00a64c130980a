"""Bad input: one clear sentence, and nothing left that looks whole."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from picolm.base.errors import PicoError
from picolm.data.contract import DataConfig, open_source
from picolm.data.inspect import find_damage
from picolm.data.parquet import read_shard
from picolm.data.prepare import PreparedData, PrepareSettings, open_prepared, prepare
from picolm.data.sources import open_data
from picolm.records import durable

Writer = Callable[..., Path]
SETTINGS = PrepareSettings(max_seq_len=7, rows_per_shard=50)


@pytest.fixture
def prepared(tmp_path: Path, jsonl: Writer, texts, tokenizer) -> PreparedData:
    return prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "data", settings=SETTINGS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("blank.jsonl", b"\n\n  \n", "no text"),
        ("binary.txt", b"abc\0def", "line|document 1: there is a zero byte"),
        ("broken.jsonl", b'{"text": "fine"}\n{"text": "\xe4"}\n', r"line 2: byte 10 \(0xe4\) is not UTF-8"),
        ("notjson.jsonl", b'{"text": "fine"}\nhello\n', "line 2 is not JSON"),
        ("list.jsonl", b"[1]\n", "line 1 holds a list"),
        ("column.jsonl", b'{"content": "x"}\n', "has no `text`, but: content"),
        ("number.jsonl", b'{"text": 3}\n', "`text` is int, not text"),
        ("wide.txt", "wide".encode("utf-16"), "is UTF-16"),
        ("cut.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 100, mtime=0)[:-9], "cannot be decompressed"),
        ("text.parquet", b"PAR1 no", "cannot be read as parquet"),
        ("picture.png", b"x", "files ending in .png are not read"),
        ("short.jsonl", b'{"text": "a"}\n', "a row needs 8"),
    ],
)
def test_unusable_files_give_one_sentence_and_leave_nothing(name: str, content: bytes, message: str, tmp_path: Path, tokenizer):
    source = tmp_path / name
    source.write_bytes(content)
    with pytest.raises(PicoError, match=message) as caught:
        prepare([str(source)], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)
    assert str(name) in caught.value.message or "text" in caught.value.message or "tokens" in caught.value.message
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path, tokenizer):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(PicoError, match="has no column `text`, but: body, n"):
        prepare([str(path)], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)
    with pytest.raises(PicoError, match="column `n` holds int64, not text"):
        prepare([str(path)], tokenizer=tokenizer, out=tmp_path / "out", settings=PrepareSettings(column="n"))


def test_missing_folders_and_files_say_how_to_get_them(tmp_path: Path, tokenizer):
    with pytest.raises(PicoError, match=r"there is no file or folder") as caught:
        prepare([str(tmp_path / "nothing*")], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)
    assert caught.value.hint
    with pytest.raises(PicoError, match=r"there is no folder"):
        open_prepared(tmp_path / "nowhere")
    (tmp_path / "plain").mkdir()
    with pytest.raises(PicoError, match=r"has no manifest.json"):
        open_prepared(tmp_path / "plain")
    with pytest.raises(PicoError, match="holds no text files"):
        prepare([str(tmp_path / "plain")], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)


def test_the_same_file_twice_is_refused(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    source = str(jsonl(texts))
    with pytest.raises(PicoError, match="is named twice"):
        prepare([source], val_sources=[source], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)


def test_two_processes_cannot_prepare_into_one_folder(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    work = tmp_path / ".out.preparing"
    work.mkdir()
    with (work / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PicoError, match="another process is preparing"):
            prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)


def test_a_full_disk_is_said_so_and_the_work_continues_later(tmp_path: Path, jsonl: Writer, texts, tokenizer, monkeypatch):
    source = str(jsonl(texts))

    def full(path: Path) -> None:
        if ".parquet" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")

    flush = durable.flush_file
    monkeypatch.setattr(durable, "flush_file", full)
    with pytest.raises(PicoError, match=r"the disk of .* is full"):
        prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(durable, "flush_file", flush)
    assert prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=SETTINGS).split("train").rows


def shard_of(data: PreparedData, number: int = 0) -> Path:
    return data.path / data.manifest["splits"]["train"]["shards"][number]["name"]


def read_first(data: PreparedData) -> None:
    open_prepared(data.path).split("train").read(numpy.arange(3))


def test_a_missing_a_truncated_and_a_changed_shard_are_named(prepared: PreparedData):
    shard = shard_of(prepared)
    whole = shard.read_bytes()
    shard.unlink()
    with pytest.raises(PicoError, match=r"train-00000-of-.*parquet is missing"):
        read_first(prepared)
    shard.write_bytes(whole[:-10])
    with pytest.raises(PicoError, match="bytes instead of"):
        read_first(prepared)
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(PicoError, match="has changed"):
        read_first(prepared)
    assert find_damage(prepared.path) == [f"{shard.relative_to(prepared.path)}: its SHA-256 is not that of the manifest"]
    shard.write_bytes(whole)
    read_first(prepared)
    assert find_damage(prepared.path) == []


def test_verify_finds_an_edited_manifest_a_changed_tokenizer_and_a_wrong_decoded_copy(prepared: PreparedData):
    read_first(prepared)
    copy = next(prepared.cache.iterdir())
    copy.write_bytes(bytes(copy.stat().st_size))
    (prepared.path / "tokenizer.json").write_text("{}")
    manifest = json.loads((prepared.path / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][1]["rows"] -= 1
    (prepared.path / "manifest.json").write_text(json.dumps(manifest))
    problems = " ".join(find_damage(prepared.path))
    for part in ("has been edited", "tokenizer.json has changed", "differs from it", "the manifest says"):
        assert part in problems


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"input_ids": [[1, 2], [3, 999]]}, "holds token 999, the vocabulary has 300"),
        ({"input_ids": [[1, 2], [3, -4]]}, "holds token -4"),
        ({"input_ids": [[1, 2], [3]]}, "row 1 has 1 tokens, the others 2"),
        ({"input_ids": [[1, 2], None]}, "1 rows of `input_ids` are empty"),
        ({"input_ids": ["a", "b"]}, "holds string, not lists of integers"),
        ({"tokens": [[1, 2]]}, "has no column `input_ids`, but: tokens"),
    ],
)
def test_shards_with_wrong_content_are_refused(column, message: str, tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.table(column), tmp_path / "a.parquet")
    with pytest.raises(PicoError, match=message):
        read_shard(tmp_path / "a.parquet", row_length=2, vocab_size=300)


def test_a_truncated_parquet_file_is_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"input_ids": [[1, 2]] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PicoError, match="cannot be read as parquet"):
        read_shard(path, row_length=2, vocab_size=300)


def test_rows_outside_are_refused(prepared: PreparedData):
    rows = prepared.split("train")
    for wrong in (-1, rows.rows):
        with pytest.raises(PicoError, match="has no row"):
            rows.read(numpy.array([0, wrong]))
    with pytest.raises(PicoError, match="has no split `val`"):
        prepared.split("val")


def test_settings_that_contradict_or_name_nothing_are_refused(prepared: PreparedData, tmp_path: Path):
    with pytest.raises(PicoError, match=r"there is no such folder"):
        open_source(str(tmp_path / "nowhere"), {})
    with pytest.raises(PicoError, match="is not a data source with settings"):
        open_source(str(prepared.path), {"speed": 3})
    with pytest.raises(ValueError, match="not both"):
        DataConfig.model_validate({"dataset": {"name": "a", "mix": {"b": 1.0}}})


def test_a_mixture_of_unlike_sources_is_refused(prepared: PreparedData, tmp_path: Path, jsonl: Writer, texts, tokenizer):
    other = prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "b", settings=PrepareSettings(max_seq_len=5))
    config = DataConfig.model_validate({"dataset": {"mix": {prepared.name: 1, other.name: 1}}})
    with pytest.raises(PicoError, match=r"rows of .* have 6 tokens, rows of .* 8"):
        open_data(config)
