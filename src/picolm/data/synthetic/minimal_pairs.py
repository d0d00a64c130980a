"""Minimal pairs of the synthetic language by phenomenon, with the fields of BLiMP: one word decides, and the parser confirms it.

A phenomenon is a list of frames. A frame has symbols before the decisive word, the class of that word, the class of the wrong
word (or the same word in the other number), and symbols behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy

from picolm.data.synthetic.language import COPULA, FEATURES, NUMBER, PEOPLE, REFLEXIVE, THINGS, Language, spell

OTHER_NUMBER = "other number"
"""In place of a wrong class: the right word in the other number."""

SINGULAR_OTHER = {"m": "f", "f": "m"}


@dataclass(frozen=True)
class Frame:
    """Symbols of a sentence around its decisive word."""

    before: tuple[str, ...]
    right: str
    wrong: str
    behind: tuple[str, ...]


@dataclass(frozen=True)
class Phenomenon:
    """One thing to be known about the language, and how sentences that test it are made."""

    name: str
    field: str
    term: str
    frames: tuple[Frame, ...]


def phenomena() -> list[Phenomenon]:
    """All phenomena of the language."""
    agreement, argument, anaphor = "subject_verb_agreement", "argument_structure", "anaphor_agreement"
    return [
        Phenomenon("agreement_simple", "morphology", agreement, tuple(_agreement())),
        Phenomenon("agreement_across_place", "morphology", agreement, tuple(_agreement_across_place())),
        Phenomenon("agreement_across_subject_relative", "morphology", agreement, tuple(_agreement_across_subject_relative())),
        Phenomenon("agreement_across_object_relative", "morphology", agreement, tuple(_agreement_across_object_relative())),
        Phenomenon("determiner_noun_agreement", "morphology", "determiner_noun_agreement", tuple(_determiner())),
        Phenomenon("anaphor_gender", "morphology", anaphor, tuple(_anaphor_gender())),
        Phenomenon("anaphor_number", "morphology", anaphor, tuple(_anaphor_number())),
        Phenomenon("anaphor_gender_across_relative", "syntax", "binding", tuple(_anaphor_across_relative())),
        Phenomenon("transitive", "syntax", argument, tuple(_transitive())),
        Phenomenon("intransitive", "syntax", argument, tuple(_intransitive())),
        Phenomenon("ditransitive", "syntax", argument, tuple(_ditransitive())),
        Phenomenon("clause_complement", "syntax", argument, tuple(_complement())),
        Phenomenon("animate_subject", "semantics", "s-selection", tuple(_animate_subject())),
        Phenomenon("object_animacy", "semantics", "s-selection", tuple(_object_animacy())),
        Phenomenon("relative_pronoun_animacy", "syntax_semantics", "filler_gap_dependency", tuple(_relative_pronoun())),
    ]


def held_out_phenomena(language: Language) -> list[Phenomenon]:
    """The phenomena across a modifier, with the nouns that never had one in the texts. None if nothing is held out."""
    across = ("agreement_across_place", "agreement_across_subject_relative", "agreement_across_object_relative")
    chosen = [phenomenon for phenomenon in phenomena() if phenomenon.name in (*across, "anaphor_gender_across_relative")]
    return [
        replace(phenomenon, name=f"{phenomenon.name}_held_out", frames=tuple(map(_with_held_out_noun, phenomenon.frames)))
        for phenomenon in chosen
        if language.held_out_nouns
    ]


def _with_held_out_noun(frame: Frame) -> Frame:
    determiner, noun, *rest = frame.before
    return replace(frame, before=(determiner, noun.replace(".seen", ".held"), *rest))


def _simple(kind: str) -> tuple[str, str]:
    return f"det.{NUMBER[kind]}", f"noun.{kind}"


def _modified(kind: str) -> tuple[str, str]:
    """A noun with a modifier behind it: some nouns may be held out from there."""
    return f"det.{NUMBER[kind]}", f"noun.{kind}.seen"


def _verb(kind: str) -> str:
    return f"{'act' if kind in PEOPLE else 'happen'}.{NUMBER[kind]}"


def _distractors(kind: str, among: tuple[str, ...]) -> list[str]:
    """Kinds whose number is not that of `kind`."""
    return [other for other in among if NUMBER[other] != NUMBER[kind]]


def _pronoun(kind: str) -> str:
    return "who" if kind in PEOPLE else "which"


def _agreement() -> Iterator[Frame]:
    for kind in FEATURES:
        yield Frame(_simple(kind), _verb(kind), OTHER_NUMBER, (".",))
        adjective = "adjective.person" if kind in PEOPLE else "adjective.thing"
        yield Frame(_simple(kind), COPULA[NUMBER[kind]], OTHER_NUMBER, (adjective, "."))


def _agreement_across_place() -> Iterator[Frame]:
    for kind in FEATURES:
        for other in _distractors(kind, FEATURES):
            yield Frame((*_modified(kind), "preposition", *_simple(other)), _verb(kind), OTHER_NUMBER, (".",))


def _agreement_across_subject_relative() -> Iterator[Frame]:
    for kind in PEOPLE:
        for other in _distractors(kind, FEATURES):
            before = (*_modified(kind), "who", f"see.{NUMBER[kind]}", *_simple(other))
            yield Frame(before, _verb(kind), OTHER_NUMBER, (".",))


def _agreement_across_object_relative() -> Iterator[Frame]:
    for kind in FEATURES:
        for other in _distractors(kind, PEOPLE):
            before = (*_modified(kind), _pronoun(kind), *_simple(other), f"see.{NUMBER[other]}")
            yield Frame(before, _verb(kind), OTHER_NUMBER, (".",))


def _determiner() -> Iterator[Frame]:
    for kind in FEATURES:
        yield Frame((), {"s": "this", "p": "these"}[NUMBER[kind]], OTHER_NUMBER, (f"noun.{kind}", _verb(kind), "."))


def _anaphor_gender() -> Iterator[Frame]:
    for kind, other in SINGULAR_OTHER.items():
        for subject in (_simple(kind), (f"name.{kind}",)):
            yield Frame((*subject, "greet.s"), REFLEXIVE[kind], REFLEXIVE[other], (".",))


def _anaphor_number() -> Iterator[Frame]:
    for kind in SINGULAR_OTHER:
        yield Frame((*_simple(kind), "greet.s"), REFLEXIVE[kind], REFLEXIVE["p"], (".",))
        yield Frame((*_simple("p"), "greet.p"), REFLEXIVE["p"], REFLEXIVE[kind], (".",))


def _anaphor_across_relative() -> Iterator[Frame]:
    for kind, other in SINGULAR_OTHER.items():
        before = (*_modified(kind), "who", "see.s", *_simple(other), "greet.s")
        yield Frame(before, REFLEXIVE[kind], REFLEXIVE[other], (".",))


def _transitive() -> Iterator[Frame]:
    for kind in PEOPLE:
        for other in FEATURES:
            yield Frame(_simple(kind), f"see.{NUMBER[kind]}", f"act.{NUMBER[kind]}", (*_simple(other), "."))


def _intransitive() -> Iterator[Frame]:
    for kind in PEOPLE:
        for verb in ("see", "greet", "buy"):
            yield Frame(_simple(kind), f"act.{NUMBER[kind]}", f"{verb}.{NUMBER[kind]}", (".",))


def _ditransitive() -> Iterator[Frame]:
    for kind in PEOPLE:
        for thing in THINGS:
            for person in PEOPLE:
                behind = (*_simple(thing), "to", *_simple(person), ".")
                yield Frame(_simple(kind), f"give.{NUMBER[kind]}", f"buy.{NUMBER[kind]}", behind)


def _complement() -> Iterator[Frame]:
    for kind in PEOPLE:
        for other in PEOPLE:
            behind = ("that", *_simple(other), _verb(other), ".")
            yield Frame(_simple(kind), f"think.{NUMBER[kind]}", f"see.{NUMBER[kind]}", behind)


def _animate_subject() -> Iterator[Frame]:
    for kind in PEOPLE:
        thing = "t" if NUMBER[kind] == "s" else "q"
        yield Frame((f"det.{NUMBER[kind]}",), f"noun.{kind}", f"noun.{thing}", (_verb(kind), "."))


def _object_animacy() -> Iterator[Frame]:
    for kind in PEOPLE:
        for person in PEOPLE:
            thing = "t" if NUMBER[person] == "s" else "q"
            for verb, right, wrong in (("greet", person, thing), ("buy", thing, person)):
                before = (*_simple(kind), f"{verb}.{NUMBER[kind]}", f"det.{NUMBER[person]}")
                yield Frame(before, f"noun.{right}", f"noun.{wrong}", (".",))


def _relative_pronoun() -> Iterator[Frame]:
    for kind in FEATURES:
        for other in PEOPLE:
            behind = (*_simple(other), f"see.{NUMBER[other]}", _verb(kind), ".")
            yield Frame(_modified(kind), _pronoun(kind), _pronoun("t" if kind in PEOPLE else "p"), behind)


def draw_pairs(language: Language, phenomenon: Phenomenon, count: int, generator: numpy.random.Generator) -> list[dict[str, Any]]:
    """`count` different pairs as BLiMP records, frames in turn. The right sentence has one derivation, the wrong one has none."""
    records: dict[str, dict[str, Any]] = {}
    frames = [frame for frame in phenomenon.frames if _has_derivation(language, frame)]
    for attempt in range(20):
        for number, frame in enumerate(frames):
            share = -(-count // len(frames))
            for pair in _fill(language, frame, share, generator):
                records.setdefault(pair["sentence_good"], {**pair, "_frame": (attempt, number)})
        if len(records) >= count:
            break
    chosen = _in_turn(list(records.values()), count)
    facts = {"field": phenomenon.field, "linguistics_term": phenomenon.term, "UID": phenomenon.name}
    flags = {"simple_LM_method": True, "two_prefix_method": False, "lexically_identical": False}
    return [{**pair, **facts, **flags, "pairID": str(number)} for number, pair in enumerate(chosen)]


def _in_turn(records: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Records of all frames alternately, so that the first ones are a fair selection."""
    by_frame: dict[Any, list[dict[str, Any]]] = {}
    for record in records:
        by_frame.setdefault(record.pop("_frame"), []).append(record)
    longest = max(map(len, by_frame.values()), default=0)
    turns = [group[place] for place in range(longest) for group in by_frame.values() if place < len(group)]
    return turns[:count]


def _has_derivation(language: Language, frame: Frame) -> bool:
    """Whether the language is deep enough for the frame, and has words for it."""
    if any(symbol.endswith(".held") and symbol not in language.grammar.words for symbol in frame.before):
        return False
    words = [_a_word(language, symbol) for symbol in (*frame.before, frame.right, *frame.behind)]
    return language.whole.grammar.derivations(language.start, words).number == 1


def _a_word(language: Language, symbol: str) -> str:
    return next(iter(language.grammar.words.get(symbol, {symbol: 1.0})))


def _fill(language: Language, frame: Frame, count: int, generator: numpy.random.Generator) -> Iterator[dict[str, Any]]:
    def draw(symbol: str) -> list[str]:
        return language.grammar.sample(symbol, count, generator).sentences

    before = [" ".join(words) for words in zip(*map(draw, frame.before), strict=True)] if frame.before else [""] * count
    behind = [" ".join(words) for words in zip(*map(draw, frame.behind), strict=True)]
    right = draw(frame.right)
    wrong = [language.lexicon.other_number[word] for word in right] if frame.wrong == OTHER_NUMBER else draw(frame.wrong)
    for prefix, good, bad, rest in zip(before, right, wrong, behind, strict=True):
        yield {
            "sentence_good": spell(f"{prefix} {good} {rest}".strip()),
            "sentence_bad": spell(f"{prefix} {bad} {rest}".strip()),
            "one_prefix_method": bool(prefix),
            "one_prefix_prefix": spell(prefix),
            "one_prefix_word_good": good if prefix else spell(good),
            "one_prefix_word_bad": bad if prefix else spell(bad),
        }
