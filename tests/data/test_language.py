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
from picolm.data.synthetic.minimal_pairs import draw_pairs, held_out_phenomena, phenomena
from picolm.records.synthetic import LanguageFolder

HARD = LanguageSettings(
    held_out_share=0.2, depth=3, vocabulary_share=0.4, zipf_exponent=0.0, modifier_share=0.6, clause_share=0.8
)
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


def test_held_out_nouns_have_modifiers_in_the_slice_alone():
    language = build_language(LanguageSettings(held_out_share=0.25))
    generator = numpy.random.default_rng(6)
    held, control = (language.draw_modified(part, 200, generator) for part in ("held", "seen"))
    for text in held:
        assert (language.derivations(text), language.whole.derivations(text)) == (0, 1), text
    for text in control:
        assert (language.derivations(text), language.whole.derivations(text)) == (1, 1), text
    nouns = set(language.held_out_nouns)
    assert len(nouns) == pytest.approx(0.25 * sum(len(language.lexicon.classes[f"noun.{kind}"]) for kind in "mfptq"), abs=4)
    texts = language.draw_documents(300, generator).texts
    assert nouns & {word for text in texts for word in text.replace(".", "").split()}
    for phenomenon in held_out_phenomena(language):
        for pair in draw_pairs(language, phenomenon, 20, generator):
            assert pair["sentence_good"].split()[1] in nouns
            assert language.derivations(pair["sentence_good"]) == language.whole.derivations(pair["sentence_bad"]) == 0
            assert language.whole.derivations(pair["sentence_good"]) == 1
    for phenomenon in phenomena():
        for pair in draw_pairs(language, phenomenon, 10, generator):
            assert (language.derivations(pair["sentence_good"]), language.whole.derivations(pair["sentence_bad"])) == (1, 0)
    assert held_out_phenomena(build_language(LanguageSettings())) == []


def test_a_slice_is_written_beside_the_texts(tmp_path: Path):
    synthesize(tmp_path / "a", documents=20, seed=1, pairs=3, settings=LanguageSettings(held_out_share=0.2))
    names = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.jsonl")}
    assert {"modified_held.jsonl", "modified_seen.jsonl", "minimal_pairs/agreement_across_place_held_out.jsonl"} <= names


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


def word_level(words: list[str], path: Path, tmp_path: Path):
    """A tokenizer of whole words and marks, made by the library itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from picolm.data.tokenizer import load_tokenizer

    vocabulary = {word: number for number, word in enumerate(["<|endoftext|>", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / path))
    return load_tokenizer(tmp_path / path)


def test_the_floor_is_exact_under_a_word_level_tokenizer_and_unknown_where_words_are_confused(tmp_path: Path):
    from picolm.data.floor import LanguageFacts

    language = synthesize(tmp_path / "lang", documents=100, seed=1, pairs=0)
    folder = LanguageFolder(tmp_path / "lang")
    facts = LanguageFacts(folder, folder.read_description())
    words = sorted({form.strip() for form in language.expected_forms()})
    floor = facts.floor(word_level(words, Path("all.json"), tmp_path))
    marks = language.grammar.expected_words["sentence"]
    tokens = 1 + language.settings.sentences_per_document * (language.words_per_sentence + marks["."] + marks[","])
    assert floor["language"]["tokens_per_document_is"] == "exact"
    assert floor["entropy_floor_nats_per_token"] == pytest.approx(language.entropy_per_document / tokens, rel=1e-9)
    confused = facts.floor(word_level(words[:-9], Path("some.json"), tmp_path))
    assert "entropy_floor_nats_per_token" not in confused
    assert "does not tell" in confused["language"]["floor_is_unknown"]
