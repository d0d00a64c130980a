"""From text to rows: nothing lost, nothing doubled, the same bytes whatever happens on the way."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from picolm.base.errors import PicoError
from picolm.data import assemble, documents, tokenize
from picolm.data.prepare import PreparedData, PrepareSettings, open_prepared, prepare
from picolm.data.tokenizer import TextTokenizer

Writer = Callable[..., Path]
SHORT = PrepareSettings(max_seq_len=15, seed=1)


def rows_of(data: PreparedData, split: str = "train") -> numpy.ndarray:
    rows = data.split(split)
    return rows.read(numpy.arange(rows.rows))


def documents_in(tokens: numpy.ndarray, tokenizer: TextTokenizer) -> list[str]:
    """The texts between end-of-text marks, the last unfinished one left out."""
    return tokenizer.decode(tokens).split(tokenizer.end_of_text)[:-1]


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_unshuffled_rows_are_the_documents_one_after_the_other(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    settings = PrepareSettings(max_seq_len=15, shuffle=False)
    data = prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=settings)
    stream = [id for text in texts for id in [*tokenizer.encode(text).tolist(), tokenizer.end_of_text_id]]
    rows = rows_of(data)
    assert rows.reshape(-1).tolist() == stream[: rows.size]
    facts = data.manifest["splits"]["train"]
    assert facts["tokens"] == len(stream)
    assert facts["tokens_dropped"] == len(stream) - rows.size < 16
    assert facts["documents"] == len(texts)


def test_shuffling_permutes_documents_and_rows_and_keeps_every_one(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    data = prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=SHORT)
    rows = rows_of(data)
    count = len(rows)
    in_place = assemble.permute(numpy.arange(count), count, assemble.named_key("rows/train", 1))
    found = documents_in(rows[in_place].reshape(-1), tokenizer)
    assert len(texts) - len(found) <= 2  # the last may be cut by the remainder that is dropped
    assert not Counter(found) - Counter(texts)
    assert found != texts[: len(found)]
    assert numpy.abs(in_place - numpy.arange(count)).mean() == pytest.approx(count / 3, rel=0.25)


def test_buckets_pieces_and_workers_do_not_change_a_byte(tmp_path: Path, jsonl: Writer, texts, tokenizer, monkeypatch):
    source = str(jsonl(texts))
    settings = PrepareSettings(max_seq_len=15, val_share=0.2, rows_per_shard=100)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "one", settings=settings, workers=1)
    monkeypatch.setattr(documents, "PIECE_BYTES", 5_000)
    monkeypatch.setattr(assemble.Assembly, "bucket_tokens", 700)
    monkeypatch.setattr(tokenize, "ENCODE_CHARACTERS", 10_000)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "many", settings=settings, workers=5)
    one, many = bytes_of(tmp_path / "one"), bytes_of(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(one[name] == many[name] for name in one)
    assert sum(name.endswith(".parquet") for name in one) > 5


def test_unshuffled_buckets_keep_the_order(tmp_path: Path, jsonl: Writer, tokenizer, monkeypatch):
    source = str(jsonl([f"the cat sees {number}" for number in range(3_000)]))
    settings = PrepareSettings(max_seq_len=15, shuffle=False)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "one", settings=settings)
    monkeypatch.setattr(assemble.Assembly, "bucket_tokens", 2_000)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "many", settings=settings)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "many")


@pytest.mark.parametrize("stop_at", ["tokenise", "shuffle train", "write train", "shuffle val"])
def test_a_preparation_that_was_stopped_continues_to_the_same_bytes(
    stop_at: str, tmp_path: Path, jsonl: Writer, texts, tokenizer, monkeypatch
):
    monkeypatch.setattr(documents, "PIECE_BYTES", 20_000)
    monkeypatch.setattr(assemble.Assembly, "bucket_tokens", 4_000)
    source = str(jsonl(texts))
    settings = PrepareSettings(max_seq_len=15, val_share=0.2, rows_per_shard=100)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "whole", settings=settings)
    calls = 0

    def stop(progress) -> None:
        nonlocal calls
        calls += progress.phase == stop_at
        if calls == 2 or (calls == 1 and progress.done == 1.0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=settings, progress=stop)
    assert not (tmp_path / "out").exists()
    tokenised: list[int] = []
    original = tokenize.Tokenizing._tokenize

    def counted(self, piece, target) -> None:
        tokenised.append(target.number)
        original(self, piece, target)

    monkeypatch.setattr(tokenize.Tokenizing, "_tokenize", counted)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=settings)
    assert 0 not in tokenised
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "out", "texts.jsonl"}


def test_a_changed_source_begins_anew(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    def stop(progress) -> None:
        if progress.phase == "shuffle train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=SHORT, progress=stop)
    source = str(jsonl(texts[::-1]))
    prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=SHORT)
    prepare([source], tokenizer=tokenizer, out=tmp_path / "fresh", settings=SHORT)
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "fresh")


def test_documents_are_held_out_whole_and_by_share(tmp_path: Path, jsonl: Writer, tokenizer):
    texts = [f"the cat {number} sees {number}" for number in range(2_000)]
    settings = PrepareSettings(max_seq_len=7, val_share=0.25, share=0.5, shuffle=False)
    data = prepare([str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=settings)
    train, val = (documents_in(rows_of(data, split).reshape(-1), tokenizer) for split in ("train", "val"))
    assert len(train) + len(val) == pytest.approx(1_000, abs=100)
    assert len(val) / (len(train) + len(val)) == pytest.approx(0.25, abs=0.05)
    assert not set(train) & set(val)
    assert set(train) | set(val) <= set(texts)
    assert data.manifest["counts"]["documents_left_out"] == 2_000 - data.manifest["counts"]["documents"]


def test_val_files_go_to_val_alone(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    data = prepare(
        [str(jsonl(texts[:200], "a.jsonl"))],
        val_sources=[str(jsonl(texts[200:], "b.jsonl"))],
        tokenizer=tokenizer,
        out=tmp_path / "out",
        settings=SHORT,
    )
    assert {split: facts["documents"] for split, facts in data.manifest["splits"].items()} == {"train": 200, "val": 100}


def test_an_evaluation_set_of_its_own_has_val_alone(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    data = prepare([], val_sources=[str(jsonl(texts))], tokenizer=tokenizer, out=tmp_path / "out", settings=SHORT)
    assert data.splits == ["val"]
    with pytest.raises(PicoError, match="has no split `train`"):
        data.split("train")


def test_every_form_of_the_same_text_gives_the_same_rows(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    lines = jsonl(texts).read_bytes()
    parquet = tmp_path / "texts.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "n": list(range(len(texts)))}), parquet, row_group_size=7)
    (tmp_path / "texts.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "texts.jsonl.bz2").write_bytes(bz2.compress(lines))
    (tmp_path / "texts.jsonl.xz").write_bytes(lzma.compress(lines))
    with pyarrow.CompressedOutputStream(str(tmp_path / "texts.jsonl.zst"), "zstd") as stream:
        stream.write(lines)
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "lines.txt").write_text("\n".join(texts))
    (tmp_path / "paragraphs.txt").write_text("\n\n\n".join(texts) + "\n")
    names = sorted(path.name for path in tmp_path.iterdir())
    prepared = {}
    for name in names:
        unit = {"lines.txt": "lines", "paragraphs.txt": "paragraphs"}.get(name, "file")
        settings = PrepareSettings(max_seq_len=15, shuffle=False, documents=unit)
        data = prepare([str(tmp_path / name)], tokenizer=tokenizer, out=tmp_path / "out" / name, settings=settings)
        prepared[name] = data.split("train").fingerprint
    assert len(names) == 9
    assert len(set(prepared.values())) == 1, prepared


def test_folders_and_globs_are_read_in_order_of_name(tmp_path: Path, texts, tokenizer):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for place, part in (("b.txt", 1), ("a.txt", 0), ("deep/c.txt", 2), (".hidden.txt", 3)):
        (folder / place).write_text(" ".join(texts[part * 50 : part * 50 + 50]))
    settings = PrepareSettings(max_seq_len=15, shuffle=False)
    whole = prepare([str(folder)], tokenizer=tokenizer, out=tmp_path / "folder", settings=settings)
    globbed = prepare([str(folder / "**/[abc].txt")], tokenizer=tokenizer, out=tmp_path / "glob", settings=settings)
    assert whole.fingerprint == globbed.fingerprint
    assert whole.manifest["splits"]["train"]["documents"] == 3
    assert tokenizer.decode(rows_of(whole)[0]).startswith(texts[0][:10])


def test_shards_have_the_size_or_the_number_asked_for(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    source = str(jsonl(texts))
    settings = {"max_seq_len": 15, "val_share": 0.1}
    sized = prepare([source], tokenizer=tokenizer, out=tmp_path / "a", settings=PrepareSettings(**settings, rows_per_shard=64))
    counted = prepare([source], tokenizer=tokenizer, out=tmp_path / "b", settings=PrepareSettings(**settings, shards=7))
    rows = [[shard["rows"] for shard in data.manifest["splits"]["train"]["shards"]] for data in (sized, counted)]
    assert set(rows[0][:-1]) == {64}
    assert len(rows[1]) == 7
    assert max(rows[1]) - min(rows[1]) <= 1
    assert (rows_of(sized) == rows_of(counted)).all()


def test_what_is_there_is_returned_and_something_else_is_not_overwritten(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    source, out = str(jsonl(texts)), tmp_path / "out"
    prepare([source], tokenizer=tokenizer, out=out, settings=SHORT)
    before = (out / "manifest.json").stat().st_mtime_ns
    prepare([source], tokenizer=tokenizer, out=out, settings=SHORT)
    assert (out / "manifest.json").stat().st_mtime_ns == before
    other = PrepareSettings(max_seq_len=7)
    with pytest.raises(PicoError, match="exists already"):
        prepare([source], tokenizer=tokenizer, out=out, settings=other)
    assert prepare([source], tokenizer=tokenizer, out=out, settings=other, overwrite=True).row_length == 8
    assert open_prepared(out).row_length == 8


def test_end_of_text_written_in_a_document_is_counted(tmp_path: Path, jsonl: Writer, texts, tokenizer):
    source = jsonl([*texts, "the cat <|endoftext|> sees"])
    data = prepare([str(source)], tokenizer=tokenizer, out=tmp_path / "out", settings=SHORT)
    assert data.manifest["counts"]["end_of_text_in_text"] == 1


def test_a_long_text_is_cut_for_the_tokenizer_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(tokenize, "ENCODE_CHARACTERS", 50)
    for text in ("word " * 100, "line of text\n" * 30, "x" * 333, " " + "y" * 120, "short"):
        segments = tokenize.cut_text(text)
        assert "".join(segments) == text
        assert all(0 < len(segment) <= 50 for segment in segments)


@pytest.mark.data
def test_books_go_through_and_every_chapter_comes_back(test_data: Path, tmp_path: Path):
    from picolm.data.tokenizer import load_tokenizer

    books = test_data / "data/corpus_books"
    tokenizer = load_tokenizer(test_data / "data/tokenizer/gpt-neox-olmo-dolma-v1_5.json")
    settings = PrepareSettings(max_seq_len=256, shuffle=False)
    data = prepare([str(books / "validation.jsonl")], tokenizer=tokenizer, out=tmp_path / "out", settings=settings)
    texts = [json.loads(line)["text"] for line in (books / "validation.jsonl").read_text().splitlines()]
    facts = data.manifest["splits"]["train"]
    assert (facts["tokens"], facts["documents"]) == (209_486 + 45, 45)  # counted independently, see the corpus's README
    assert tokenizer.end_of_text_id == 50_279
    assert (data.manifest["vocab_size"], data.manifest["padded_vocab_size"]) == (50_280, 50_304)
    found = documents_in(rows_of(data).reshape(-1), tokenizer)
    assert found == texts[: len(found)]
    assert len(found) == 44


@pytest.mark.data
def test_datasets_reads_the_result_row_for_row(test_data: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    from picolm.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(test_data / "data/tokenizer/gpt-neox-olmo-dolma-v1_5.json")
    settings = PrepareSettings(max_seq_len=128, documents="paragraphs", val_share=0.05, rows_per_shard=1_000)
    source = str(test_data / "data/tinyshakespeare/input.txt")
    data = prepare([source], tokenizer=tokenizer, out=tmp_path / "out", settings=settings)
    for split in ("train", "val"):
        files = [str(tmp_path / "out" / shard["name"]) for shard in data.manifest["splits"][split]["shards"]]
        table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert table.column_names == ["input_ids"]
        assert (numpy.array(table.with_format("numpy")["input_ids"]) == rows_of(data, split)).all()


def test_a_dataset_is_fetched_once_and_then_taken_from_the_cache(tmp_path: Path, jsonl: Writer, texts, tokenizer, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("PICO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "dataset"
    folder.mkdir()
    jsonl(texts, "dataset/train.jsonl")
    settings = PrepareSettings(max_seq_len=15, shuffle=False)
    fetched = prepare([f"hf:{folder}@train"], tokenizer=tokenizer, out=tmp_path / "a", settings=settings)
    monkeypatch.setattr(datasets, "load_dataset", None)
    again = prepare([f"hf:{folder}@train"], tokenizer=tokenizer, out=tmp_path / "b", settings=settings)
    plain = prepare([str(folder)], tokenizer=tokenizer, out=tmp_path / "c", settings=settings)
    assert fetched.fingerprint == again.fingerprint == plain.fingerprint
    monkeypatch.undo()
    with pytest.raises(PicoError, match=r"hf:nobody/nothing cannot be fetched"):
        prepare(["hf:nobody/nothing"], tokenizer=tokenizer, out=tmp_path / "d", settings=settings)
