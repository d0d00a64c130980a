"""Probabilistic context-free grammars without recursion: exact entropy and expectations, fast sampling, a parser to check them.

Recursion is written out to a fixed depth by whoever builds the grammar, so all expectations are finite sums.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy


class Rule(NamedTuple):
    """One way to write out a symbol."""

    probability: float
    symbols: tuple[str, ...]


class Sample(NamedTuple):
    """Sentences drawn, words separated by spaces, and the log-probability (nats) of each derivation."""

    sentences: list[str]
    log_probabilities: numpy.ndarray[Any, numpy.dtype[numpy.float64]]


class Derivations(NamedTuple):
    """How many derivations a sentence has, and their total probability."""

    number: int
    probability: float


@dataclass(frozen=True)
class Grammar:
    """`rules` write out symbols as symbols, `words` write out word classes as words; every other symbol is a word itself."""

    rules: Mapping[str, tuple[Rule, ...]]
    words: Mapping[str, Mapping[str, float]]

    @cached_property
    def order(self) -> list[str]:
        """All symbols with rules, each before those it is written out with. ValueError if the grammar is recursive."""
        done: dict[str, bool] = {}
        order: list[str] = []

        def visit(symbol: str) -> None:
            if done.get(symbol) is False:
                raise ValueError(f"the symbol {symbol} contains itself")
            if symbol in done or symbol not in self.rules:
                return
            done[symbol] = False
            for rule in self.rules[symbol]:
                for child in rule.symbols:
                    visit(child)
            done[symbol] = True
            order.append(symbol)

        for symbol in self.rules:
            visit(symbol)
        return order[::-1]

    @cached_property
    def entropies(self) -> dict[str, float]:
        """Entropy in nats of the derivation of each symbol: that of the choice, plus the expected entropy of what is chosen.

        H(A) = sum_r p_r (-log p_r + sum_i H(symbol i of r)). Where every sentence has one derivation, this is its entropy.
        """
        entropies = {name: _entropy(words.values()) for name, words in self.words.items()}
        for symbol in reversed(self.order):
            entropies[symbol] = sum(
                rule.probability * (-math.log(rule.probability) + sum(entropies.get(child, 0.0) for child in rule.symbols))
                for rule in self.rules[symbol]
            )
        return entropies

    @cached_property
    def expected_words(self) -> dict[str, dict[str, float]]:
        """How often each word occurs, on average, in what a symbol is written out as."""
        expected: dict[str, dict[str, float]] = {name: dict(words) for name, words in self.words.items()}
        for symbol in reversed(self.order):
            total: dict[str, float] = defaultdict(float)
            for rule in self.rules[symbol]:
                for child in rule.symbols:
                    for word, count in expected.get(child, {child: 1.0}).items():
                        total[word] += rule.probability * count
            expected[symbol] = dict(total)
        return expected

    @cached_property
    def first_words(self) -> dict[str, dict[str, float]]:
        """Probability of each word to be the first of what a symbol is written out as."""
        first: dict[str, dict[str, float]] = {name: dict(words) for name, words in self.words.items()}
        for symbol in reversed(self.order):
            total: dict[str, float] = defaultdict(float)
            for rule in self.rules[symbol]:
                for word, share in first.get(rule.symbols[0], {rule.symbols[0]: 1.0}).items():
                    total[word] += rule.probability * share
            first[symbol] = dict(total)
        return first

    def sample(self, symbol: str, count: int, generator: numpy.random.Generator) -> Sample:
        """`count` independent sentences of a symbol. All choices of one symbol are drawn at once, which makes it fast."""
        choices = self._draw_choices(symbol, count, generator)
        drawn = {name: _Stock(*self._draw_words(name, needed, generator)) for name, needed in choices.needed_words.items()}
        for name in reversed(self.order):
            if name in choices.rules:
                drawn[name] = _Stock(*self._write_out(name, choices.rules[name], drawn))
        return Sample(*drawn[symbol].take(count)) if symbol in drawn else Sample([symbol] * count, numpy.zeros(count))

    def _draw_choices(self, symbol: str, count: int, generator: numpy.random.Generator) -> _Choices:
        needed: Counter[str] = Counter({symbol: count})
        chosen: dict[str, numpy.ndarray[Any, Any]] = {}
        for name in self.order:
            if not needed[name]:
                continue
            rules = self.rules[name]
            chosen[name] = _draw([rule.probability for rule in rules], needed[name], generator)
            for number, uses in enumerate(numpy.bincount(chosen[name], minlength=len(rules)).tolist()):
                for child in rules[number].symbols:
                    needed[child] += uses
        return _Choices(chosen, {name: needed[name] for name in self.words if needed[name]})

    def _draw_words(self, name: str, count: int, generator: numpy.random.Generator) -> Sample:
        words, probabilities = list(self.words[name]), numpy.array(list(self.words[name].values()))
        chosen = _draw(probabilities, count, generator)
        return Sample([words[number] for number in chosen.tolist()], numpy.log(probabilities)[chosen])

    def _write_out(self, name: str, chosen: numpy.ndarray[Any, Any], drawn: Mapping[str, _Stock]) -> Sample:
        sentences = numpy.empty(len(chosen), dtype=object)
        log_probabilities = numpy.empty(len(chosen))
        for number, rule in enumerate(self.rules[name]):
            places = numpy.flatnonzero(chosen == number)
            if not len(places):
                continue
            parts = [
                drawn[child].take(len(places)) if child in drawn else _constant(child, len(places)) for child in rule.symbols
            ]
            sentences[places] = [" ".join(words) for words in zip(*(part.sentences for part in parts), strict=True)]
            log_probabilities[places] = math.log(rule.probability) + sum(part.log_probabilities for part in parts)
        return Sample(sentences.tolist(), log_probabilities)

    def derivations(self, symbol: str, words: Sequence[str]) -> Derivations:
        """All derivations of a sentence from a symbol: none if it is not in the language, one if it is not ambiguous."""
        return _Parser(self, words).parse(symbol, 0).get(len(words), Derivations(0, 0.0))


class _Choices(NamedTuple):
    rules: dict[str, numpy.ndarray[Any, Any]]
    needed_words: dict[str, int]


@dataclass
class _Stock:
    """Independent samples of one symbol, handed out in order."""

    sentences: list[str]
    log_probabilities: numpy.ndarray[Any, Any]
    used: int = 0

    def take(self, count: int) -> Sample:
        start, self.used = self.used, self.used + count
        return Sample(self.sentences[start : self.used], self.log_probabilities[start : self.used])


class _Parser:
    """Recursive descent with memory over all derivations at once; ends when the grammar is not recursive."""

    def __init__(self, grammar: Grammar, words: Sequence[str]) -> None:
        self._grammar = grammar
        self._words = words
        self._known: dict[tuple[str, int], dict[int, Derivations]] = {}

    def parse(self, symbol: str, start: int) -> dict[int, Derivations]:
        """For each place where `symbol`, begun at `start`, may end: its derivations."""
        if symbol not in self._grammar.rules:
            return self._word(symbol, start)
        if (symbol, start) not in self._known:
            ends: dict[int, Derivations] = {}
            for rule in self._grammar.rules[symbol]:
                for end, found in self._sequence(rule.symbols, start).items():
                    _add(ends, end, found.number, rule.probability * found.probability)
            self._known[symbol, start] = ends
        return self._known[symbol, start]

    def _word(self, symbol: str, start: int) -> dict[int, Derivations]:
        if start >= len(self._words):
            return {}
        word = self._words[start]
        share = self._grammar.words[symbol].get(word, 0.0) if symbol in self._grammar.words else float(word == symbol)
        return {start + 1: Derivations(1, share)} if share else {}

    def _sequence(self, symbols: tuple[str, ...], start: int) -> dict[int, Derivations]:
        reached = {start: Derivations(1, 1.0)}
        for symbol in symbols:
            after: dict[int, Derivations] = {}
            for place, before in reached.items():
                for end, found in self.parse(symbol, place).items():
                    _add(after, end, before.number * found.number, before.probability * found.probability)
            reached = after
        return reached


def _add(ends: dict[int, Derivations], end: int, number: int, probability: float) -> None:
    before = ends.get(end, Derivations(0, 0.0))
    ends[end] = Derivations(before.number + number, before.probability + probability)


def _constant(word: str, count: int) -> Sample:
    return Sample([word] * count, numpy.zeros(count))


def _draw(probabilities: Any, count: int, generator: numpy.random.Generator) -> numpy.ndarray[Any, Any]:
    ends = numpy.cumsum(probabilities)
    return numpy.searchsorted(ends / ends[-1], generator.random(count), side="right")


def _entropy(probabilities: Iterable[float]) -> float:
    return -sum(share * math.log(share) for share in probabilities)
