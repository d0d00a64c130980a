"""The conformance check of data sources: everything registered passes, and each promise has a source that breaks it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy
import pytest

from picolm.base.errors import PicoError
from picolm.data.contract import DATA_SOURCES, Rows
from picolm.testing.checks import check_data_source, complaints
from picolm.testing.checks.data_source import SOURCE_PROMISES
from picolm.testing.tiny import Workshop

from .broken import broken_promises, without_a_culprit

OPTIONS = {"prepared": lambda workshop: {"path": str(workshop.data)}}


@pytest.mark.parametrize("name", [entry.name for entry in DATA_SOURCES.entries()])
def test_every_registered_data_source_keeps_its_promises(name: str, workshop: Workshop):
    assert complaints(check_data_source(DATA_SOURCES.find(name), options=OPTIONS[name](workshop))) == []


class Counting:
    """Rows of consecutive numbers, to be spoilt by its heirs."""

    vocabulary = 50
    rows = 30
    row_length = 5

    def __init__(self, seed: int, split: str) -> None:
        self.seed = seed
        self.of = split
        self.table = self.tokens(numpy.arange(self.rows))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.seed} {self.of}".encode()).hexdigest()

    def tokens(self, rows: Rows) -> Rows:
        start = rows[:, None] * 3 + self.seed + (7 if self.of == "val" else 0)
        return (start + numpy.arange(self.row_length)) % self.vocabulary

    def read(self, rows: Rows) -> Rows:
        if len(rows) and (rows.min() < 0 or rows.max() >= self.rows):
            raise PicoError("there is no such row")
        return self.tokens(rows)


class Source:
    """A source of such rows."""

    kind: ClassVar[type[Counting]] = Counting
    tokenizer_file: Path | None = None

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed
        self.name = "counting"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"counting {self.seed}".encode()).hexdigest()

    @property
    def manifest(self) -> dict[str, Any]:
        return {"vocab_size": 50}

    def split(self, name: str) -> Counting:
        if name not in ("train", "val"):
            raise PicoError(f"there is no split {name}")
        return self.kind(self.seed, name)


class Silent(Source):
    __doc__ = None


class Untyped(Source):
    """Counts."""

    def __init__(self, *, seed=0) -> None:  # type: ignore[no-untyped-def]
        super().__init__(seed=seed)


class WrongDefault(Source):
    """Counts."""

    def __init__(self, *, seed: int = "first") -> None:  # type: ignore[assignment]
        super().__init__(seed=seed)


class Nameless(Source):
    """Counts."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.name = ""


class ManifestOfSets(Source):
    """Counts."""

    @property
    def manifest(self) -> dict[str, Any]:
        return {"vocab_size": {50}}


class Narrow(Counting):
    def read(self, rows: Rows) -> Any:
        return super().read(rows).astype(numpy.int32)


class OutOfVocabulary(Counting):
    vocabulary = 90


class OrderDependent(Counting):
    def read(self, rows: Rows) -> Rows:
        return super().read(rows) * 0 + numpy.arange(len(rows))[:, None]


class View(Counting):
    def read(self, rows: Rows) -> Rows:
        super().read(rows)
        return self.shared[: len(rows)]

    shared = numpy.arange(1000).reshape(200, 5) % 50


class Wrapping(Counting):
    def read(self, rows: Rows) -> Rows:
        return super().read(rows % self.rows)


class Drawing(Counting):
    def read(self, rows: Rows) -> Rows:
        numpy.random.rand()
        return super().read(rows)


class NewFingerprint(Source):
    """Counts."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(numpy.random.bytes(8)).hexdigest()


class OneFingerprint(Source):
    """Counts."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"counting").hexdigest()


def of(rows: type[Counting]) -> type[Source]:
    return type(f"SourceOf{rows.__name__}", (Source,), {"kind": rows, "__doc__": "Counts."})


CULPRITS = [
    (Silent, "it says in one sentence what it is"),
    (Untyped, "its settings are keyword-only and typed"),
    (WrongDefault, "its settings survive being written to YAML"),
    (Nameless, "it has a name, a fingerprint, a manifest, a tokenizer file or none, and splits"),
    (ManifestOfSets, "it has a name, a fingerprint, a manifest, a tokenizer file or none, and splits"),
    (of(Narrow), "it reads int64 rows of one length"),
    (of(OutOfVocabulary), "its token ids are in the vocabulary"),
    (of(OrderDependent), "a row depends on its number alone"),
    (of(View), "what is read belongs to the reader"),
    (NewFingerprint, "its fingerprint is the same each time it is opened"),
    (OneFingerprint, "other tokens have another fingerprint"),
    (of(Drawing), "it leaves the random streams alone"),
    (of(Wrapping), "what does not exist is refused"),
]


@pytest.mark.parametrize(("kind", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_data_source_is_found_out(kind: Callable[..., Any], promise: str):
    assert promise in broken_promises(check_data_source(kind))


def test_every_promise_has_a_data_source_that_breaks_it():
    assert without_a_culprit(SOURCE_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_the_source_that_the_others_spoil_keeps_all_promises():
    assert complaints(check_data_source(Source)) == []
