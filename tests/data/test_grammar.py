"""The exact entropy of a grammar against enumeration and against samples."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy
import pytest

from picolm.data.synthetic.grammar import Grammar, Rule

TINY = Grammar(
    rules={
        "S": (Rule(0.6, ("NP.s", "V.s", "END")), Rule(0.4, ("NP.p", "V.p", "END"))),
        "NP.s": (Rule(0.7, ("DET", "N.s")), Rule(0.3, ("DET", "N.s", "REL.s"))),
        "NP.p": (Rule(1.0, ("DET", "N.p")),),
        "REL.s": (Rule(0.5, ("who", "V.s")), Rule(0.5, ("who", "NP.p", "VT.p"))),
        "END": (Rule(0.9, (".",)), Rule(0.1, ("!",))),
    },
    words={
        "DET": {"the": 0.75, "a": 0.25},
        "N.s": {"boy": 0.5, "girl": 0.5},
        "N.p": {"boys": 0.9, "girls": 0.1},
        "V.s": {"runs": 0.2, "sleeps": 0.8},
        "V.p": {"run": 0.2, "sleep": 0.8},
        "VT.p": {"see": 1.0},
    },
)


def enumerate_sentences(grammar: Grammar, symbol: str) -> list[tuple[str, float]]:
    """Every derivation written out by plain recursion: (sentence, probability)."""
    if symbol in grammar.words:
        return list(grammar.words[symbol].items())
    if symbol not in grammar.rules:
        return [(symbol, 1.0)]
    found = []
    for rule in grammar.rules[symbol]:
        for parts in itertools.product(*(enumerate_sentences(grammar, child) for child in rule.symbols)):
            found.append((" ".join(text for text, _ in parts), rule.probability * math.prod(share for _, share in parts)))
    return found


def test_entropy_equals_that_of_all_sentences_enumerated():
    sentences = Counter()
    for sentence, probability in enumerate_sentences(TINY, "S"):
        sentences[sentence] += probability
    assert sum(sentences.values()) == pytest.approx(1.0)
    entropy = -sum(share * math.log(share) for share in sentences.values())
    assert TINY.entropies["S"] == pytest.approx(entropy, rel=1e-12)


def test_expected_and_first_words_equal_those_of_all_sentences_enumerated():
    expected, first = Counter(), Counter()
    for sentence, probability in enumerate_sentences(TINY, "S"):
        first[sentence.split()[0]] += probability
        for word in sentence.split():
            expected[word] += probability
    assert TINY.expected_words["S"] == pytest.approx(dict(expected))
    assert TINY.first_words["S"] == pytest.approx(dict(first))


def test_samples_have_the_probabilities_of_the_enumeration():
    truth = dict(enumerate_sentences(TINY, "S"))
    count = 20_000
    sample = TINY.sample("S", count, numpy.random.default_rng(0))
    for sentence, log_probability in zip(sample.sentences, sample.log_probabilities, strict=True):
        assert math.exp(log_probability) == pytest.approx(truth[sentence])
    for sentence, seen in Counter(sample.sentences).most_common(10):
        error = math.sqrt(truth[sentence] * (1 - truth[sentence]) / count)
        assert abs(seen / count - truth[sentence]) < 5 * error


def test_parser_gives_each_sentence_its_probability_and_foreign_ones_none():
    for sentence, probability in enumerate_sentences(TINY, "S"):
        found = TINY.derivations("S", sentence.split())
        assert (found.number, found.probability) == (1, pytest.approx(probability))
    for wrong in ("the boy run .", "boy runs .", "the boy runs", "the boys who run sleep ."):
        assert TINY.derivations("S", wrong.split()).number == 0


def test_parser_counts_both_readings_of_an_ambiguous_sentence():
    ambiguous = Grammar({"S": (Rule(0.5, ("A", "b")), Rule(0.5, ("a", "B")))}, {"A": {"a": 1.0}, "B": {"b": 1.0}})
    assert ambiguous.derivations("S", ["a", "b"]) == (2, pytest.approx(1.0))


def test_recursion_is_refused():
    with pytest.raises(ValueError, match="contains itself"):
        Grammar({"S": (Rule(1.0, ("a", "S")),)}, {}).order  # noqa: B018
