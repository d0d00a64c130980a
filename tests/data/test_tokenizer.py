"""Tokenizers: every text comes back, and the end-of-text token is read, never assumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picolm.base.errors import PicoError
from picolm.data.tokenizer import load_tokenizer, train_tokenizer


@settings(deadline=None, max_examples=50)
@given(text=st.text())
def test_every_text_comes_back_unchanged(tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert (ids < tokenizer.vocab_size).all()
    assert tokenizer.encode_batch([text, "the cat"])[0].tolist() == ids.tolist()


def test_training_twice_gives_the_same_file(tmp_path: Path, texts):
    first, second = (train_tokenizer(iter(texts), tmp_path / name, vocab_size=290) for name in ("a.json", "b.json"))
    assert first.sha256 == second.sha256
    assert first.vocab_size == 290
    with pytest.raises(PicoError, match="vocab_size = 200 is too small"):
        train_tokenizer(iter(texts), tmp_path / "c.json", vocab_size=200)


def test_end_of_text_is_read_from_the_tokenizer(tmp_path: Path, texts):
    odd = train_tokenizer(iter(texts), tmp_path / "odd.json", vocab_size=300, end_of_text="<|fin|>")
    assert odd.decode([odd.end_of_text_id]) == "<|fin|>"
    with pytest.raises(PicoError, match=r"does not say which token ends a text \(its special tokens: <\|fin\|>\)") as caught:
        load_tokenizer(tmp_path / "odd.json")
    assert "--end-of-text" in caught.value.hint
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|fin|>"}}))
    assert load_tokenizer(tmp_path / "odd.json").end_of_text_id == odd.end_of_text_id
    with pytest.raises(PicoError, match="has no token '<eos>'"):
        load_tokenizer(tmp_path / "odd.json", "<eos>")


def test_a_tokenizer_is_read_once_and_again_when_it_has_changed(tmp_path: Path, texts):
    file = tmp_path / "tokenizer.json"
    train_tokenizer(iter(texts), file, vocab_size=290)
    first = load_tokenizer(file)
    assert load_tokenizer(tmp_path) is first
    train_tokenizer(iter(texts), file, vocab_size=280)
    assert load_tokenizer(file).vocab_size == 280
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    assert load_tokenizer(file).end_of_text == "a"


@pytest.mark.data
def test_the_two_neox_tokenizers_differ_in_their_end_of_text(test_data: Path, tmp_path: Path):
    source = test_data / "data/tokenizer/gpt-neox-olmo-dolma-v1_5.json"
    assert load_tokenizer(source).end_of_text_id == 50_279
    swapped = json.loads(source.read_text())
    for token in swapped["added_tokens"]:  # the older sibling file has ids 0 and 50279 the other way round
        token["id"] = {0: 50_279, 50_279: 0}.get(token["id"], token["id"])
    vocabulary = swapped["model"]["vocab"]
    for content in ("<|endoftext|>", "|||IP_ADDRESS|||"):
        if content in vocabulary:
            vocabulary[content] = 50_279 - vocabulary[content]
    (tmp_path / "older.json").write_text(json.dumps(swapped))
    assert load_tokenizer(tmp_path / "older.json").end_of_text_id == 0


def test_ids_fit_the_smallest_type_that_holds_them(tokenizer):
    assert tokenizer.dtype == numpy.uint16
    assert tokenizer.token(tokenizer.vocab_size + 5) == f"<id {tokenizer.vocab_size + 5}>"


def test_what_is_no_tokenizer_is_refused(tmp_path: Path):
    (tmp_path / "bad.json").write_text('{"hello": 1}')
    with pytest.raises(PicoError, match=r"is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "bad.json")
    with pytest.raises(PicoError, match="there is no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(PicoError, match="there is no tokenizer at nobody/nothing, and the Hub does not give one"):
        load_tokenizer("nobody/nothing")
