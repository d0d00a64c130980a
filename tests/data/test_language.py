"""The synthetic language: its entropy meets its texts, no sentence has two readings, wrong sentences are outside."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy
import pytest

from picolm.base.errors import PicoError
from picolm.data.demo import prepare_demo_data
from picolm.data.floor import WORD_FORM
from picolm.data.synthetic import LanguageSettings, build_language, synthesize
from picolm.data.synthetic.lexicon import build_lexicon, check_distinct, verb_forms
from picolm.data.synthetic.minimal_pairs import draw_pairs, phenomena
from picolm.records.synthetic import LanguageFolder

HARD = LanguageSettings(depth=3, vocabulary_share=0.4, zipf_exponent=0.0, modifier_share=0.6, clause_share=0.8)
EASY = LanguageSettings(depth=0, vocabulary_share=0.1, modifier_share=0.0, sentences_per_document=1)


@pytest.mark.parametrize("settings", [LanguageSettings(), HARD, EASY], ids=["default", "hard", "easy"])
def test_cross_entropy_of_the_true_grammar_meets_the_computed_entropy(settings: LanguageSettings):
    language = build_language(settings)
    sample = language.grammar.sample("sentence", 40_000, numpy.random.default_rng(1))
    error = sample.log_probabilities.std() / math.sqrt(len(sample.sentences))
    assert abs(-sample.log_probabilities.mean() - language.entropy_per_sentence) < 4 * error
    documents = language.draw_documents(5_000, numpy.random.default_rng(2))
    error = documents.log_probabilities.std() / math.sqrt(5_000)
    assert abs(-documents.log_probabilities.mean() - language.entropy_per_document) < 4 * error


@pytest.mark.parametrize("settings", [LanguageSettings(), HARD, EASY], ids=["default", "hard", "easy"])
def test_every_sentence_has_exactly_one_derivation_and_the_parser_finds_its_probability(settings: LanguageSettings):
    language = build_language(settings)
    sample = language.grammar.sample("sentence", 300, numpy.random.default_rng(3))
    for sentence, log_probability in zip(sample.sentences, sample.log_probabilities, strict=True):
        found = language.grammar.derivations("sentence", sentence.split())
        assert found.number == 1, sentence
        assert math.log(found.probability) == pytest.approx(log_probability)


def test_expected_word_forms_are_those_of_the_texts():
    language = build_language(LanguageSettings())
    count = 4_000
    texts = language.draw_documents(count, numpy.random.default_rng(4)).texts
    seen = Counter(form for text in texts for form in WORD_FORM.findall(text))
    expected = language.expected_forms()
    assert set(seen) <= set(expected)
    assert "".join(WORD_FORM.findall(texts[0])) == texts[0]
    for form in (".", " the", " The", "The", " who", " himself", " boy"):
        assert seen[form] / count == pytest.approx(expected[form], rel=0.1)
    assert sum(seen.values()) / count == pytest.approx(sum(expected.values()), rel=0.03)


def test_an_end_at_once_adds_no_entropy():
    language = build_language(EASY)
    assert language.entropy_per_document == pytest.approx(language.entropy_per_sentence)


@pytest.mark.parametrize("phenomenon", phenomena(), ids=lambda phenomenon: phenomenon.name)
def test_the_right_sentence_is_in_the_language_and_the_wrong_one_is_not(phenomenon):
    language = build_language(LanguageSettings())
    pairs = draw_pairs(language, phenomenon, 40, numpy.random.default_rng(5))
    assert len({pair["sentence_good"] for pair in pairs}) == 40
    for pair in pairs:
        assert language.derivations(pair["sentence_good"]) == 1, pair
        assert language.derivations(pair["sentence_bad"]) == 0, pair
        good, bad = pair["sentence_good"].split(), pair["sentence_bad"].split()
        assert len(good) == len(bad)
        assert sum(a != b for a, b in zip(good, bad, strict=True)) == 1
        assert pair["sentence_good"].startswith(f"{pair['one_prefix_prefix']} {pair['one_prefix_word_good']}".strip())
        assert pair["sentence_bad"].startswith(f"{pair['one_prefix_prefix']} {pair['one_prefix_word_bad']}".strip())


@pytest.mark.data
def test_pairs_have_the_fields_of_blimp(test_data: Path):
    with (test_data / "data/blimp/anaphor_gender_agreement.jsonl").open() as lines:
        blimp = json.loads(next(lines))
    pair = draw_pairs(build_language(LanguageSettings()), phenomena()[5], 1, numpy.random.default_rng(0))[0]
    assert {key: type(value) for key, value in blimp.items()} == {key: type(pair.get(key)) for key in blimp}


def test_a_shallow_language_has_no_pairs_that_need_nesting():
    shallow = build_language(LanguageSettings(depth=0))
    relative = next(phenomenon for phenomenon in phenomena() if phenomenon.name == "agreement_across_object_relative")
    assert draw_pairs(shallow, relative, 10, numpy.random.default_rng(0)) == []


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(tmp_path / name, documents=50, seed=seed, pairs=5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 3 + len(phenomena())
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert (tmp_path / "a/train.jsonl").read_bytes() != (tmp_path / "c/train.jsonl").read_bytes()
    with pytest.raises(PicoError, match="exists already"):
        synthesize(tmp_path / "a", documents=50, seed=1)


def test_validation_texts_are_drawn_apart_from_training_texts(tmp_path: Path):
    synthesize(tmp_path / "a", documents=200, seed=1, pairs=0)
    folder = LanguageFolder(tmp_path / "a")
    train, val = (
        {json.loads(line)["text"] for line in folder.texts(split).read_text().splitlines()} for split in ("train", "val")
    )
    assert len(val) == 10
    assert not train & val


def test_a_word_in_two_classes_is_refused():
    with pytest.raises(PicoError, match="ambiguous"):
        check_distinct({"noun": {"watch": 1.0}, "verb": {"Watch": 1.0}})
    assert verb_forms("carry") == ("carries", "carry")
    assert verb_forms("teach") == ("teaches", "teach")
    assert verb_forms("buy") == ("buys", "buy")
    assert build_lexicon(1.0, 1.0).other_number["wife"] == "wives"


def test_demo_data_are_fresh_text_with_a_floor_a_val_split_and_pairs(tmp_path: Path):
    data = prepare_demo_data(
        tmp_path / "data", seed=3, train_tokens=40_000, val_tokens=4_000, vocab_size=600, row_length=65, pairs=4
    )
    facts = data.manifest["splits"]
    assert 40_000 <= facts["train"]["tokens"] < 80_000
    assert facts["val"]["rows"] > 30
    assert data.manifest["padded_vocab_size"] == 600
    assert len(list((tmp_path / "data/minimal_pairs").iterdir())) == len(phenomena())
    language = data.manifest["language"]
    assert language["tokens_per_document_is"] == "exact"
    assert facts["train"]["tokens"] / facts["train"]["documents"] == pytest.approx(language["tokens_per_document"], rel=0.1)
    floor = language["entropy_nats_per_document"] / language["tokens_per_document"]
    assert data.manifest["entropy_floor_nats_per_token"] == pytest.approx(floor)
