"""The synthetic language: rules over nouns and verbs that must agree, and everything that is known exactly about its texts.

Features of a noun phrase: `m`, `f` (a man, a woman), `t` (a thing), `p`, `q` (several people, several things). A symbol such as
`phrase.m.1` is a noun phrase for one man, in which clauses may still be nested one deep.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy
from pydantic import Field, NonNegativeFloat, PositiveFloat

from picolm.base.config import Settings
from picolm.data.synthetic.grammar import Grammar, Rule
from picolm.data.synthetic.lexicon import Lexicon, build_lexicon

PEOPLE = ("m", "f", "p")
THINGS = ("t", "q")
FEATURES = (*PEOPLE, *THINGS)
NUMBER = {"m": "s", "f": "s", "t": "s", "p": "p", "q": "p"}
REFLEXIVE = {"m": "himself", "f": "herself", "p": "themselves"}
COPULA = {"s": "is", "p": "are"}
SUBJECT_SHARES = {"m": 0.3, "f": 0.3, "p": 0.24, "t": 0.1, "q": 0.06}
OBJECT_SHARES = {"m": 0.2, "f": 0.2, "p": 0.15, "t": 0.25, "q": 0.2}
PERSON_SHARES = {"m": 0.35, "f": 0.35, "p": 0.3}
THING_SHARES = {"t": 0.6, "q": 0.4}


class LanguageSettings(Settings):
    """How hard the synthetic language is."""

    vocabulary_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the words of each class that is used, the most frequent ones; 1 is about 480 forms."""
    zipf_exponent: NonNegativeFloat = 1.0
    """Shares of words fall with this power of their rank; 0 makes all words of a class equally frequent."""
    depth: int = Field(default=2, ge=0, le=4)
    """How deep clauses may be nested in each other."""
    modifier_share: float = Field(default=0.35, ge=0, lt=1)
    """Share of noun phrases with a clause or a prepositional phrase behind the noun: what stands between subject and verb."""
    clause_share: float = Field(default=0.6, ge=0, lt=1)
    """Of those, the share that is a relative clause, where nesting allows one: makes agreement reach further."""
    held_out_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the nouns that never stand before a modifier in texts; sentences where they do test generalisation."""
    sentences_per_document: PositiveFloat = Field(default=6.0, ge=1)
    """Mean number of sentences in a document; the number is geometric, at least one."""


class Draw(NamedTuple):
    """Documents drawn from a language, with the log-probability (nats) of each."""

    texts: list[str]
    log_probabilities: numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]


@dataclass(frozen=True)
class Language:
    """A language and what is known of it."""

    settings: LanguageSettings
    grammar: Grammar
    lexicon: Lexicon
    start: str = "sentence"

    @property
    def stop_share(self) -> float:
        """Probability that a document ends after a sentence."""
        return 1.0 / self.settings.sentences_per_document

    @property
    def entropy_per_sentence(self) -> float:
        """Nats."""
        return self.grammar.entropies[self.start]

    @property
    def entropy_of_length(self) -> float:
        """Nats in the number of sentences of a document, geometric with stop share s: -(log s + (1/s - 1) log(1 - s))."""
        stop = self.stop_share
        return -math.log(stop) - ((1 / stop - 1) * math.log(1 - stop) if stop < 1 else 0.0)

    @property
    def entropy_per_document(self) -> float:
        """Nats: the sentences of a document are independent, and the text tells where each ends."""
        return self.entropy_of_length + self.settings.sentences_per_document * self.entropy_per_sentence

    @cached_property
    def words_per_sentence(self) -> float:
        """Expected number of words, marks not counted."""
        return sum(count for word, count in self.grammar.expected_words[self.start].items() if word not in (".", ","))

    def expected_forms(self) -> dict[str, float]:
        """How often each form of a word (with the space before it, or with a capital) occurs in a document, on average."""
        sentences = self.settings.sentences_per_document
        first, every = self.grammar.first_words[self.start], self.grammar.expected_words[self.start]
        forms: dict[str, float] = defaultdict(float)
        for word, count in every.items():
            within = count - first.get(word, 0.0)
            forms[word if word in (".", ",") else f" {word}"] += sentences * within
        for word, share in first.items():
            forms[_capital(word)] += share
            forms[f" {_capital(word)}"] += (sentences - 1) * share
        return {form: count for form, count in sorted(forms.items()) if count > 1e-15}

    def draw_documents(self, count: int, generator: numpy.random.Generator) -> Draw:
        """Independent documents."""
        lengths = generator.geometric(self.stop_share, count)
        sample = self.grammar.sample(self.start, int(lengths.sum()), generator)
        sentences = [spell(sentence) for sentence in sample.sentences]
        ends = numpy.cumsum(lengths)
        starts = ends - lengths
        texts = [" ".join(sentences[start:end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        of_sentences = numpy.add.reduceat(sample.log_probabilities, starts)
        stop = self.stop_share
        going_on = (lengths - 1) * math.log(1 - stop) if stop < 1 else 0.0
        return Draw(texts, of_sentences + going_on + math.log(stop))

    def draw_modified(self, part: str, count: int, generator: numpy.random.Generator) -> list[str]:
        """Sentences whose subject has a modifier: with nouns that texts show so (`seen`), or with those held out (`held`)."""
        return [spell(sentence) for sentence in self.grammar.sample(f"modified.{part}", count, generator).sentences]

    @property
    def held_out_nouns(self) -> list[str]:
        """The nouns that never stand before a modifier in texts."""
        return sorted(word for kind in FEATURES for word in self.grammar.words.get(f"noun.{kind}.held", {}))

    @cached_property
    def whole(self) -> Language:
        """The language with nothing held out."""
        return build_language(self.settings.model_copy(update={"held_out_share": 0.0})) if self.held_out_nouns else self

    def derivations(self, text: str) -> int:
        """How many derivations one written sentence has: 0 outside the language, 1 inside."""
        return max(self.grammar.derivations(self.start, words).number for words in _readings(text))


def spell(sentence: str) -> str:
    """Words as a written sentence: `the boy sleeps .` becomes `The boy sleeps.`"""
    return _capital(sentence).replace(" .", ".").replace(" ,", ",")


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _readings(text: str) -> list[list[str]]:
    """The words of a written sentence, with the first as it stands and in small letters."""
    words = text.replace(".", " .").replace(",", " ,").split()
    return [words, [words[0].lower(), *words[1:]]]


def build_language(settings: LanguageSettings) -> Language:
    """The language with these settings."""
    lexicon = build_lexicon(settings.vocabulary_share, settings.zipf_exponent, settings.held_out_share)
    grammar = Grammar(_rules(settings, lexicon), lexicon.classes)
    return Language(settings, grammar, lexicon)


def _rules(settings: LanguageSettings, lexicon: Lexicon) -> dict[str, tuple[Rule, ...]]:
    top = settings.depth
    rules = {
        "sentence": _shared({(f"clause.{top}", "."): 0.85, (f"clause.{top}", ",", "and", f"clause.{top}", "."): 0.15}),
        "place": _shared(
            {("preposition", f"det.{NUMBER[kind]}", f"noun.{kind}"): share for kind, share in OBJECT_SHARES.items()}
        ),
    }
    for depth in range(top + 1):
        rules |= _clauses(depth)
        for kind in FEATURES:
            rules |= _noun_phrase(kind, depth, settings)
            rules[f"predicate.{kind}.{depth}"] = _predicate(kind, depth)
    for part in ("seen", "held"):
        nouns = {kind: f"noun.{kind}.{part}" for kind in FEATURES if f"noun.{kind}.{part}" in lexicon.classes}
        if nouns:
            rules[f"modified.{part}"] = _shared(
                {
                    (f"det.{NUMBER[kind]}", noun, f"modifier.{kind}.{top}", f"predicate.{kind}.{top}", "."): SUBJECT_SHARES[kind]
                    for kind, noun in nouns.items()
                }
            )
    return rules


def _shared(options: Mapping[Any, float]) -> tuple[Rule, ...]:
    """Rules with the given weights, those of weight zero left out."""
    total = sum(options.values())
    return tuple(Rule(weight / total, symbols) for symbols, weight in options.items() if weight)


def _clauses(depth: int) -> dict[str, tuple[Rule, ...]]:
    subjects = {(f"phrase.{kind}.{depth}", f"predicate.{kind}.{depth}"): share for kind, share in SUBJECT_SHARES.items()}
    phrases = {"object": OBJECT_SHARES, "person": PERSON_SHARES, "thing": THING_SHARES}
    return {f"clause.{depth}": _shared(subjects)} | {
        f"{name}.{depth}": _shared({(f"phrase.{kind}.{depth}",): share for kind, share in shares.items()})
        for name, shares in phrases.items()
    }


def _noun_phrase(kind: str, depth: int, settings: LanguageSettings) -> dict[str, tuple[Rule, ...]]:
    """`the happy boy who ...`, or a name. At most one modifier stands behind a noun, so it is clear what it belongs to."""
    adjective = "adjective.person" if kind in PEOPLE else "adjective.thing"
    noun, noun_before, behind = f"noun.{kind}", f"noun.{kind}.seen", f"modifier.{kind}.{depth}"
    modified = settings.modifier_share
    name = 0.3 if kind in ("m", "f") else 0.0
    determiner = f"det.{NUMBER[kind]}"
    return {
        f"phrase.{kind}.{depth}": _shared({(determiner, f"head.{kind}.{depth}"): 1 - name, (f"name.{kind}",): name}),
        f"head.{kind}.{depth}": _shared(
            {
                (noun,): 0.75 * (1 - modified),
                (adjective, noun): 0.25 * (1 - modified),
                (noun_before, behind): 0.8 * modified,
                (adjective, noun_before, behind): 0.2 * modified,
            }
        ),
        behind: _shared(_modifiers(kind, depth, settings.clause_share)),
    }


def _modifiers(kind: str, depth: int, clause_share: float) -> dict[tuple[str, ...], float]:
    if not depth:
        return {("place",): 1.0}
    pronoun = "who" if kind in PEOPLE else "which"
    verbs = ("see", "greet") if kind in PEOPLE else ("see", "buy")
    options = {("place",): 1 - clause_share, (pronoun, f"predicate.{kind}.{depth - 1}"): 0.6 * clause_share}
    for other, share in PERSON_SHARES.items():
        for verb in verbs:
            options[(pronoun, f"phrase.{other}.{depth - 1}", f"{verb}.{NUMBER[other]}")] = 0.2 * clause_share * share
    return options


def _predicate(kind: str, depth: int) -> tuple[Rule, ...]:
    """What is said of a subject. Every verb class takes one fixed set of arguments; adverbs stand before the verb only."""
    number = NUMBER[kind]
    if kind in THINGS:
        return _shared({(f"happen.{number}",): 0.5, (COPULA[number], "adjective.thing"): 0.5})
    below = max(depth - 1, 0)
    cores: dict[tuple[str, ...], float] = {
        (f"act.{number}",): 0.22,
        (f"see.{number}", f"object.{below}"): 0.17,
        (f"greet.{number}", f"person.{below}"): 0.13,
        (f"greet.{number}", REFLEXIVE[kind]): 0.12,
        (f"buy.{number}", f"thing.{below}"): 0.12,
        (f"give.{number}", f"thing.{below}", "to", f"person.{below}"): 0.08,
    }
    if depth:
        cores[(f"think.{number}", "that", f"clause.{depth - 1}")] = 0.07
    options = {symbols: 0.85 * weight for symbols, weight in cores.items()}
    options |= {("adverb", *symbols): 0.15 * weight for symbols, weight in cores.items()}
    return _shared(options | {(COPULA[number], "adjective.person"): 0.09})
