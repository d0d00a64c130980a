from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from picolm.base.errors import PicoError
from picolm.evaluate.contract import Given
from picolm.evaluate.documents import Source, open_documents
from picolm.evaluate.files import data_files, read_records
from picolm.evaluate.minimal_pairs import Blimp
from picolm.evaluate.paloma import Paloma, PalomaOriginal
from picolm.evaluate.perplexity import Perplexity
from picolm.evaluate.scorer import Scorer


def write_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


def scores(evaluation: Any, model: Any, tokenizer: Any) -> dict[tuple[str, str], Any]:
    evaluation.check(Given(None, tokenizer, model.max_seq_len))
    with Scorer(model, tokenizer) as scorer:
        return {(score.group, score.measure): score for score in evaluation.run(scorer)}


def test_text_scores_the_same_from_jsonl_json_and_parquet(bigram, tokenizer, write_jsonl, tmp_path):
    records = [{"text": "some text"}, {"text": "and more, longer than one window"}]
    (tmp_path / "t.json").write_text(json.dumps(records))
    paths = [write_jsonl("t.jsonl", records), tmp_path / "t.json", write_parquet(tmp_path / "t.parquet", records)]
    found = [scores(Perplexity(data=str(path)), bigram, tokenizer)["all", "loss_per_token"].value for path in paths]
    assert found[0] == found[1] == found[2]


def test_token_ids_are_scored_as_they_stand_and_their_bytes_are_those_of_the_text(bigram, tokenizer, tmp_path):
    ids = [256, *b"abc", 256, *b"de"]
    path = write_parquet(tmp_path / "tokens/val-00000-of-00001.parquet", [{"input_ids": ids}, {"input_ids": [7]}])
    for given in (tokenizer, None):
        evaluation = Perplexity(data=str(path.parent))
        evaluation.check(Given(None, given, 16))
        with Scorer(bigram, given) as scorer:
            found = {score.measure: score for score in evaluation.run(scorer)}
        assert (
            found["loss_per_token"].value == pytest.approx(-bigram.log_prob(ids) / 6, rel=1e-6) and found["loss_per_token"].n == 6
        )
        assert ("bits_per_byte" in found) == (given is not None)
    bits = scores(Perplexity(data=str(path)), bigram, tokenizer)["all", "bits_per_byte"]
    assert bits.value == pytest.approx(-bigram.log_prob(ids) / 5 / math.log(2), rel=1e-6)


def test_where_there_is_text_beside_tokens_the_models_own_tokenizer_decides(tokenizer, bigram, tmp_path):
    path = write_parquet(tmp_path / "both.parquet", [{"input_ids": [1, 2, 3], "text": "abcdef"}])
    assert scores(Perplexity(data=str(path)), bigram, tokenizer)["all", "loss_per_token"].n == 6


@pytest.mark.parametrize(
    ("ids", "message"), [([1, 300], "holds token id 300; the model knows 257"), ([5, -1], "`input_ids` is not a list")]
)
def test_token_ids_that_the_model_does_not_know_are_refused_by_check(tokenizer, tmp_path, ids, message):
    path = write_parquet(tmp_path / "tokens.parquet", [{"input_ids": [1, 2, 3]}, {"input_ids": ids}])
    for evaluation in (Perplexity(data=str(path)), PalomaOriginal(dataset_name=str(path))):
        with pytest.raises(PicoError, match=message):
            evaluation.check(Given(None, tokenizer, 16, 257))


def test_a_domain_is_a_file_or_what_a_column_says(bigram, tokenizer, write_jsonl):
    path = write_jsonl("texts/web.jsonl", [{"text": "a", "source": "x"}, {"text": "b", "source": "y"}])
    write_jsonl("texts/books-00000-of-00002.jsonl", [{"text": "c", "source": "x"}])

    def domains(**options: Any) -> set[str]:
        documents = open_documents(Source(str(path.parent), **options), Given(None, tokenizer, 16))
        return {document.domain for chunk in documents.chunks(Scorer(bigram, tokenizer)) for document in chunk}

    assert domains() == {"web", "books"}
    assert domains(domain_field="source") == {"x", "y"}
    with pytest.raises(PicoError, match="no text in the column `subdomain`"):
        domains(domain_field="subdomain")


def test_a_split_is_a_subfolder_or_a_beginning_of_file_names(write_jsonl, tmp_path):
    for name in ("a/val/x.jsonl", "a/test/y.jsonl", "b/val-00000.jsonl", "b/test-00000.jsonl", "c/z.jsonl"):
        write_jsonl(name, [{"text": "t"}])

    def names(folder: str) -> list[str]:
        return [path.name for path in data_files(str(tmp_path / folder), split="val")]

    assert names("a") == ["x.jsonl"] and names("b") == ["val-00000.jsonl"] and names("c") == ["z.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "{}", "holds a dict, not a list"),
        ("x.json", "[", "is not JSON"),
        ("x.json", "[]", "is empty"),
        ("x.jsonl", "not json", "x.jsonl:1 is not JSON"),
        ("x.parquet", "not parquet", "not a readable parquet file"),
        ("x.txt", "text", "is none of .jsonl, .json, .parquet"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(PicoError, match=message):
        list(read_records(tmp_path / name))


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes('{"text": "ü"}'.encode("latin-1"))
    with pytest.raises(PicoError, match="is not UTF-8 text"):
        list(read_records(tmp_path / "x.jsonl"))


def test_a_byte_order_mark_is_not_part_of_the_data(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert next(read_records(tmp_path / "x.jsonl")).values == {"text": "a"}


def test_the_originals_score_is_the_mean_of_perplexities_of_documents_cut_without_a_prefix(bigram, tokenizer, write_jsonl):
    texts = ["abcdefgh" * 40, "zq", "q"]
    path = write_jsonl("t.jsonl", [{"text": text} for text in texts])
    found = scores(PalomaOriginal(dataset_name=str(path), max_length=12), bigram, tokenizer)["all", "mean_document_perplexity"]
    by_document = [math.exp(-bigram.log_prob([*texts[0].encode()][:12]) / 11), math.exp(-bigram.log_prob([*b"zq"]))]
    assert found.value == pytest.approx(np.mean(by_document), rel=1e-6) and found.n == 2
    assert found.note == "1 documents of a single token left out"


def test_paloma_takes_the_window_that_the_model_can_hold(bigram, tokenizer, write_jsonl):
    path = write_jsonl("t.jsonl", [{"text": "abcdefgh" * 40}])
    mine = scores(Paloma(dataset_name=str(path), max_length=2048), bigram, tokenizer)
    plain = scores(Perplexity(data=str(path)), bigram, tokenizer)
    assert mine["all", "perplexity"].value == plain["all", "perplexity"].value


def test_hub_data_are_fetched_by_configuration_and_split(tokenizer, monkeypatch, tmp_path):
    asked: list[tuple[Any, ...]] = []

    def snapshot_download(name: str, *, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, repo_type, revision, *allow_patterns))
        folder = tmp_path / f"cache-{revision is None}"
        folder.mkdir(exist_ok=True)
        if revision is None:
            write_parquet(folder / "p/train/0000.parquet", [{"sentence_good": "a", "sentence_bad": "b", "UID": "p"}])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    Blimp().check(Given(None, tokenizer, 16))
    assert asked == [
        ("nyu-mll/blimp", "dataset", "refs/convert/parquet", "*/train/*.parquet"),
        ("nyu-mll/blimp", "dataset", None, "*train*.parquet"),
    ]


@pytest.mark.data
def test_real_documents_of_16_to_106000_characters_are_scored_whole(bigram, tokenizer, test_data, write_jsonl):
    folder = test_data / "data/ppl_domains"
    paths = [path for split in ("val", "test") for path in sorted((folder / split).iterdir())]
    texts = sorted((record.values["text"] for path in paths for record in read_records(path)), key=len)
    assert len(texts[0]) == 16 and len(texts[-1]) > 105_000
    chosen = [texts[0], texts[len(texts) // 2], texts[-1]]
    path = write_jsonl("chosen.jsonl", [{"text": text} for text in chosen])
    found = scores(Perplexity(data=str(path)), bigram, tokenizer)
    total = sum(bigram.log_prob([256, *text.encode()]) for text in chosen)
    size = sum(len(text.encode()) for text in chosen)
    assert found["all", "loss_per_token"].value == pytest.approx(-total / size, rel=1e-6)
    assert found["all", "bits_per_byte"].n == found["all", "loss_per_token"].n == size


@pytest.mark.data
def test_fourteen_domains_have_their_own_numbers_and_a_macro_average(bigram, tokenizer, test_data):
    found = scores(Perplexity(data=str(test_data / "data/ppl_domains"), split="val", limit=2), bigram, tokenizer)
    domains = [group for group, measure in found if group.startswith("domain/") and measure == "perplexity"]
    assert len(domains) == 14
    values = [found[domain, "perplexity"].value for domain in domains]
    assert found["macro_average", "perplexity"].value == pytest.approx(np.mean(values))
