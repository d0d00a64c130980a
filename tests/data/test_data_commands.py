"""`pico data` from the shell: text in, token shards out, and what they hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from picolm.base.errors import PicoError
from picolm.cli.data import app
from picolm.data.prepare import open_prepared

Writer = Callable[..., Path]


def run(*arguments: object) -> str:
    """What the command writes to stdout; its errors are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_a_synthetic_language_to_the_text_of_a_step(tmp_path: Path):
    language, tokenizer, data = tmp_path / "lang", tmp_path / "tokenizer.json", tmp_path / "data"
    described = json.loads(run("synthesize", "--out", language, "--documents", 300, "--pairs", 5, "--set", "depth=1", "--json"))
    assert described["settings"]["depth"] == 1
    run("train-tokenizer", language, "--vocab-size", 700, "--out", tokenizer)
    summary = json.loads(
        run("prepare", language, "--tokenizer", tokenizer, "--max-seq-len", 31, "--shards", 3, "--out", data, "--json")
    )
    assert summary["splits"]["train"]["shards"] == 3
    assert summary["splits"]["train"]["documents"] == 300
    assert summary["splits"]["val"]["documents"] == 15
    assert 1 < summary["entropy_floor_nats_per_token"] < 4
    shown = json.loads(run("show", data, "--step", 2, "--batch-size", 4, "--text", "--json"))
    assert shown["rows"] == [8, 9, 10, 11]
    assert len(shown["input_ids"][0]) == 32
    assert "." in shown["text"][0]
    assert run("show", data, "--step", 2, "--batch-size", 4).startswith("row 8: ")
    assert "verified" not in run("verify", data)
    assert json.loads(run("verify", data, "--json"))["problems"] == []


def test_show_reads_order_and_batch_from_a_training_file(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    run("prepare", jsonl(texts), "--tokenizer", tokenizer.file, "--max-seq-len", 15, "--out", tmp_path / "data")
    config = tmp_path / "run.yaml"
    config.write_text(
        f"data:\n  dataset: {{name: {tmp_path / 'data'}}}\n  dataloader: {{batch_size: 6, shuffle: true}}\n"
        "training: {seeds: {data: 9}}\nmodel: {d_model: 96}\n"
    )
    from picolm.data.loader import BatchLoader

    expected = BatchLoader(open_prepared(tmp_path / "data").split("train"), batch_sequences=6, seed=9, shuffle=True)
    shown = json.loads(run("show", config, "--step", 7, "--json"))
    assert shown["rows"] == expected.rows_of_step(7).tolist()
    assert shown["input_ids"] == expected.batch_of_step(7).tolist()


def test_stats_count_what_the_rows_hold(tmp_path: Path, jsonl: Writer, tokenizer):
    source = jsonl(["the cat", "the cat", "the dog", "a"] * 30)
    run("prepare", source, "--tokenizer", tokenizer.file, "--max-seq-len", 11, "--no-shuffle", "--out", tmp_path / "data")
    measured = json.loads(run("stats", tmp_path / "data", "--top", 3, "--json"))
    rows = open_prepared(tmp_path / "data").split("train")
    tokens = rows.read(__import__("numpy").arange(rows.rows))
    end = tokenizer.end_of_text_id
    assert measured["tokens"] == tokens.size
    assert measured["most_frequent"][0]["id"] == end
    assert measured["most_frequent"][0]["share"] == pytest.approx((tokens == end).mean())
    assert measured["documents_per_row"]["mean"] == pytest.approx((tokens == end).sum(axis=1).mean(), abs=1e-3)
    lengths = {len(tokenizer.encode(text)) + 1 for text in ("the cat", "the dog", "a")}
    assert measured["document_lengths"]["max"] == max(lengths)
    assert "token" in run("stats", tmp_path / "data")


def test_overlap_shows_the_text_that_both_splits_have(tmp_path: Path, jsonl: Writer, tokenizer):
    shared = "the old cat sees the green house near the river while the dog runs slowly under the tree"
    train = jsonl([f"the mouse likes {shared}"] + ["a dog finds the river"] * 40, "train.jsonl")
    val = jsonl(["quickly runs the new mouse", f"a cat and {shared}"] * 3, "val.jsonl")
    data = tmp_path / "data"
    run("prepare", train, "--val", val, "--tokenizer", tokenizer.file, "--max-seq-len", 80, "--no-shuffle", "--out", data)
    report = json.loads(run("overlap", data, "--ngram", 8, "--json"))
    assert report["val_ngrams_in_train"] > 5
    assert report["examples"][0]["text"].strip() in shared
    assert "rows are touched" in run("overlap", data, "--ngram", 8)
    assert json.loads(run("overlap", data, "--ngram", 75, "--json"))["val_ngrams_in_train"] == 0


def test_shards_made_elsewhere_are_indexed_and_shown(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    run("prepare", jsonl(texts), "--tokenizer", tokenizer.file, "--max-seq-len", 15, "--out", tmp_path / "data")
    (tmp_path / "data/manifest.json").unlink()
    with pytest.raises(PicoError, match="not a folder of prepared data"):
        run("show", tmp_path / "data", "--step", 0)
    run("index", tmp_path / "data", "--tokenizer", tokenizer.file)
    assert "the" in run("show", tmp_path / "data", "--step", 0, "--text")
    assert "token" in run("stats", tmp_path / "data")
    run("fetch", tmp_path / "data")


def test_damage_gives_a_sentence_and_an_exit_code(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    run("prepare", jsonl(texts), "--tokenizer", tokenizer.file, "--max-seq-len", 15, "--out", tmp_path / "data")
    (tmp_path / "data/tokenizer.json").unlink()
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "data")])
    assert result.exit_code == 1
    assert "tokenizer.json is missing" in result.output


def test_wrong_options_name_what_is_allowed(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    prepared = ["prepare", jsonl(texts), "--tokenizer", tokenizer.file, "--out", tmp_path / "data"]
    with pytest.raises(PicoError, match="documents = 'words'"):
        run(*prepared, "--documents", "words")
    with pytest.raises(PicoError, match=r"share = 1\.5"):
        run(*prepared, "--share", 1.5)
    with pytest.raises(PicoError, match="no text is named"):
        run("prepare", "--tokenizer", tokenizer.file, "--out", tmp_path / "data")
    with pytest.raises(PicoError, match="there is no tokenizer at"):
        run("prepare", jsonl(texts), "--tokenizer", tmp_path / "none", "--out", tmp_path / "data")
    with pytest.raises(PicoError, match="dept is not a setting") as caught:
        run("synthesize", "--out", tmp_path / "lang", "--set", "dept=2")
    assert "depth" in caught.value.hint
    assert not (tmp_path / "data").exists()


def test_help_imports_nothing_heavy():
    code = (
        "import sys, picolm.cli.data\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'tokenizers', 'pydantic', 'pandas', 'fsspec'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"
