"""The words of the synthetic language. Every form belongs to one word class only, so a sentence can be read in one way only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from picolm.base.errors import PicoError

MALE = """boy king brother father son grandfather husband prince waiter monk wizard duke nephew groom landlord steward priest
cowboy butler bachelor baron knight"""
FEMALE = """girl queen sister mother daughter grandmother wife:wives princess waitress nun witch duchess niece bride landlady
hostess lady maid widow goddess countess ballerina"""
PEOPLE = """teachers doctors farmers friends neighbours students painters sailors singers writers drivers lawyers dancers bakers
children"""
THINGS = """book table house garden letter river picture window door chair lamp bottle basket bridge mountain tree flower car boat
train road stone wall key clock mirror blanket bowl cup hat coat ring box knife:knives bell drum candle ladder market tower
castle field forest lake hill kitchen school shop"""
MALE_NAMES = """John Peter Thomas Henry David Paul Mark Frank George Robert Simon Walter Martin Victor Hugo Leo Max Daniel Samuel
Louis"""
FEMALE_NAMES = """Mary Anna Emma Clara Lucy Helen Julia Sarah Laura Alice Rose Nora Grace Ruth Jane Martha Diana Sophie Maria
Susan"""
ACTS = """sleep run laugh swim dance smile walk cough wait rest sneeze whisper kneel vanish yawn blink travel jump hesitate
shiver"""
HAPPENINGS = "fall glow shake burn rattle tremble crumble sparkle disappear shine"
SEEING = "see find like watch remember draw notice describe mention prefer"
GREETING = "greet love hate thank hug kiss teach visit trust blame warn forgive marry praise comfort"
BUYING = "buy carry open close paint build clean repair wash hide borrow sell need collect destroy"
GIVING = "give send show hand lend bring offer throw pass"
THINKING = "think know believe say hope claim fear dream doubt suspect"
ADVERBS = """often rarely quickly slowly quietly always never sometimes gladly calmly boldly carefully proudly secretly"""
PERSON_ADJECTIVES = """happy sad young tall clever brave kind rich poor busy lazy famous nervous gentle proud wise"""
THING_ADJECTIVES = """red blue green small large new dirty heavy broken wooden round cheap beautiful bright dark narrow"""
PREPOSITIONS = "near behind beside opposite below around beyond above"
CLOSED: dict[str, dict[str, float]] = {
    "det.s": {"the": 0.5, "a": 0.3, "this": 0.1, "every": 0.06, "each": 0.04},
    "det.p": {"the": 0.5, "some": 0.2, "these": 0.14, "many": 0.1, "few": 0.06},
    "and": {"and": 0.6, "but": 0.25, "while": 0.15},
}
"""Small classes with shares of their own. `the` is singular and plural; the noun behind it tells which."""

NOUN_KINDS = ("m", "f", "p", "t", "q")
NUMBERS = ("s", "p")
VERBS = {
    "act": ACTS,
    "happen": HAPPENINGS,
    "see": SEEING,
    "greet": GREETING,
    "buy": BUYING,
    "give": GIVING,
    "think": THINKING,
}


class Forms(NamedTuple):
    """Singular and plural of one word: `boy, boys` or, for a verb, `sees, see`."""

    singular: str
    plural: str


@dataclass(frozen=True)
class Lexicon:
    """Shares of the words of each class, and which form of a word is the other number."""

    classes: dict[str, dict[str, float]]
    other_number: dict[str, str]


def build_lexicon(vocabulary_share: float, zipf_exponent: float, held_out_share: float = 0.0) -> Lexicon:
    """The first words of each open class, `vocabulary_share` of them, with shares proportional to 1 / rank^exponent.

    The nouns that stand before a modifier in texts are the classes `noun.m.seen` and so on; those that do not, `noun.m.held`.
    """

    def kept(words: str) -> list[str]:
        listed = words.split()
        return listed[: max(2, math.ceil(vocabulary_share * len(listed)))]

    nouns = {gender: [noun_forms(word) for word in kept(words)] for gender, words in (("m", MALE), ("f", FEMALE), ("t", THINGS))}
    plain = {"p.name.m": MALE_NAMES, "p.name.f": FEMALE_NAMES, "adverb": ADVERBS, "preposition": PREPOSITIONS}
    plain |= {"adjective.person": PERSON_ADJECTIVES, "adjective.thing": THING_ADJECTIVES}
    lists = {name.removeprefix("p."): kept(words) for name, words in plain.items()}
    for gender, pairs in nouns.items():
        lists[f"noun.{gender}"] = [forms.singular for forms in pairs]
    people = [forms.plural for pair in zip(nouns["m"], nouns["f"], strict=True) for forms in pair]
    lists |= {"noun.p": people + kept(PEOPLE), "noun.q": [forms.plural for forms in nouns["t"]]}
    verbs = {name: [verb_forms(word) for word in kept(words)] for name, words in VERBS.items()}
    for name, pairs in verbs.items():
        for number, forms in zip(NUMBERS, zip(*pairs, strict=True), strict=True):
            lists[f"{name}.{number}"] = list(forms)
    classes = {name: zipf_shares(words, zipf_exponent) for name, words in lists.items()} | CLOSED
    pairs = [forms for group in (*nouns.values(), *verbs.values()) for forms in group] + [
        Forms("is", "are"),
        Forms("this", "these"),
    ]
    other = {forms.singular: forms.plural for forms in pairs} | {forms.plural: forms.singular for forms in pairs}
    check_distinct(classes)
    for kind in NOUN_KINDS:
        classes |= _split_nouns(f"noun.{kind}", classes[f"noun.{kind}"], held_out_share)
    return Lexicon(classes, other)


def _split_nouns(name: str, words: dict[str, float], held_out_share: float) -> dict[str, dict[str, float]]:
    """The words seen before a modifier and the others, which are spread evenly over the ranks."""
    held = {
        word: share
        for rank, (word, share) in enumerate(words.items())
        if int((rank + 1) * held_out_share) > int(rank * held_out_share)
    }
    seen = {word: share for word, share in words.items() if word not in held}
    return {f"{name}.{part}": _normalised(shares) for part, shares in (("seen", seen), ("held", held)) if shares}


def _normalised(shares: dict[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {word: share / total for word, share in shares.items()}


def zipf_shares(words: Sequence[str], exponent: float) -> dict[str, float]:
    """Share of each word, proportional to 1 / rank^exponent."""
    weights = [(rank + 1) ** -exponent for rank in range(len(words))]
    return {word: weight / sum(weights) for word, weight in zip(words, weights, strict=True)}


def noun_forms(word: str) -> Forms:
    """`boy`: boy, boys; `wife:wives` writes both out."""
    singular, _, plural = word.partition(":")
    return Forms(singular, plural or _with_s(singular))


def verb_forms(word: str) -> Forms:
    """`see`: sees, see."""
    return Forms(_with_s(word), word)


def _with_s(word: str) -> str:
    if word.endswith(("s", "sh", "ch", "x", "o")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def check_distinct(classes: dict[str, dict[str, float]]) -> None:
    """PicoError if a form, capital or not, stands in two classes other than the determiners."""
    place: dict[str, str] = {}
    for name, words in classes.items():
        for word in words:
            before = place.setdefault(word.lower(), name)
            if before != name and {before, name} != {"det.s", "det.p"}:
                raise PicoError(f"the word {word!r} is in the classes {before} and {name}, which makes the language ambiguous")
