"""What a data source promises: numbered rows of token ids that never change, and a fingerprint that says so."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.data.contract import Rows, TokenRows, TokenSource
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone, seeded

SOURCE_PROMISES = CheckList("data source", *COMMON)
_promise = SOURCE_PROMISES.promise
SAMPLE = 40
ABSENT = object()
PARTS = ("name", "fingerprint", "manifest", "tokenizer_file", "split")


@dataclass(frozen=True)
class SourceSubject:
    """A kind of data source with the options it is examined with."""

    thing: Callable[..., TokenSource]
    options: Mapping[str, Any]

    def open(self, **changes: Any) -> TokenSource:
        """A new source."""
        return self.thing(**{**self.options, **changes})

    def train(self, **changes: Any) -> TokenRows:
        """Its training rows."""
        return self.open(**changes).split("train")


def check_data_source(kind: Callable[..., TokenSource], *, options: Mapping[str, Any] | None = None) -> list[Finding]:
    """What a data source keeps of its promises. `kind`: a class, or function, that makes one from keyword-only settings."""
    chosen = dict(options or {})
    return examine(SOURCE_PROMISES, kind, chosen, lambda: SourceSubject(kind, filled(kind, chosen, "data source")))


def sample(rows: TokenRows) -> Rows:
    """Row numbers from the start, the end and between, in mixed order."""
    count = min(rows.rows, SAMPLE)
    return numpy.random.default_rng(0).permutation(numpy.linspace(0, rows.rows - 1, count).astype(numpy.int64))


@_promise(
    "it has a name, a fingerprint, a manifest, a tokenizer file or none, and splits",
    why="a run records them: what it was trained on is known afterwards by nothing else.",
)
def _parts(subject: SourceSubject) -> str:
    source = subject.open()
    if missing := [name for name in PARTS if inspect.getattr_static(source, name, ABSENT) is ABSENT]:
        raise Broken(f"it has no {', no '.join(missing)}")
    if not isinstance(source.name, str) or not source.name:
        raise Broken(f"its name is {source.name!r}")
    for holder, fingerprint in (("it", source.fingerprint), ("its train split", source.split("train").fingerprint)):
        if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
            raise Broken(f"{holder} has the fingerprint {fingerprint!r}, not a SHA-256 in hexadecimal")
    try:
        json.dumps(source.manifest)
    except TypeError as error:
        raise Broken(f"its manifest cannot be written as JSON: {error}") from error
    file = source.tokenizer_file
    if file is not None and not (isinstance(file, Path) and file.is_file()):
        raise Broken(f"its tokenizer_file is {file!r}, which is not a file")
    return f"{source.name}: {source.split('train').rows:,} rows of {source.split('train').row_length} tokens"


@_promise(
    "it reads int64 rows of one length",
    why="batches are stacked without looking; anything else fails in the middle of a run, or wraps around.",
)
def _shape(subject: SourceSubject) -> None:
    rows = subject.train()
    if rows.rows < 1 or rows.row_length < 2:
        raise Broken(f"it has {rows.rows} rows of {rows.row_length} tokens; a row predicts one token fewer than it has")
    for numbers in (sample(rows), sample(rows)[:1], sample(rows)[:0]):
        tokens = rows.read(numbers)
        if not isinstance(tokens, numpy.ndarray) or tokens.dtype != numpy.int64:
            raise Broken(f"read returns {getattr(tokens, 'dtype', type(tokens).__name__)}, not a NumPy array of int64")
        if tokens.shape != (len(numbers), rows.row_length):
            raise Broken(f"{len(numbers)} rows of {rows.row_length} tokens are read as an array of shape {tokens.shape}")


@_promise(
    "its token ids are in the vocabulary",
    why="an id the model has no row for ends the run at the step that meets it, hours after the start.",
)
def _vocabulary(subject: SourceSubject) -> str:
    source = subject.open()
    tokens = source.split("train").read(sample(source.split("train")))
    if tokens.min() < 0:
        raise Broken(f"it has the token id {tokens.min()}")
    vocabulary = _vocabulary_of(source)
    if vocabulary is None:
        raise NotApplicable(
            f"ids are 0 to {tokens.max()}; without a tokenizer file or `vocab_size` in the manifest no limit is known"
        )
    if tokens.max() >= vocabulary:
        raise Broken(f"it has the token id {tokens.max()}, its vocabulary has {vocabulary} entries")
    return f"ids up to {tokens.max()} of {vocabulary}"


@_promise(
    "a row depends on its number alone",
    why="the order of training is arithmetic on row numbers: a restart, another number of devices or of rows per batch must "
    "meet the same tokens.",
)
def _pure(subject: SourceSubject) -> None:
    rows = subject.train()
    numbers = sample(rows)
    together = rows.read(numbers)
    with seeded(1):
        alone = numpy.concatenate([rows.read(numbers[index : index + 1]) for index in range(len(numbers))])
    with seeded(2):
        reversed_order = subject.train().read(numbers[::-1].copy())[::-1]
    twice = rows.read(numpy.concatenate([numbers[:1], numbers[:1]]))
    for how, tokens in (("one by one", alone), ("in another order, by a new source", reversed_order)):
        if not numpy.array_equal(together, tokens):
            raise Broken(f"rows read {how} hold other tokens")
    if not numpy.array_equal(twice[0], twice[1]):
        raise Broken("a row asked for twice in one call holds different tokens")


@_promise(
    "what is read belongs to the reader",
    why="a batch may be changed in place; if it is a view of the source, the next epoch reads what was written.",
)
def _own_memory(subject: SourceSubject) -> None:
    rows = subject.train()
    numbers = sample(rows)
    tokens = rows.read(numbers)
    before = tokens.copy()
    tokens[...] = 0
    if not numpy.array_equal(rows.read(numbers), before):
        raise Broken("writing into the array that was read changes what is read next")


@_promise(
    "its fingerprint is the same each time it is opened",
    why="a run that continues compares it: one that changes refuses every restart.",
)
def _stable(subject: SourceSubject) -> None:
    fingerprints = []
    for seed in (1, 2):
        with seeded(seed):
            source = subject.open()
            fingerprints.append((source.fingerprint, source.split("train").fingerprint))
    if fingerprints[0] != fingerprints[1]:
        raise Broken(f"opened twice it has the fingerprints {fingerprints[0][0][:12]} and {fingerprints[1][0][:12]}")


@_promise(
    "other tokens have another fingerprint",
    why="a run that continues on other data than it began with is two runs; the fingerprint is the only witness.",
)
def _distinct(subject: SourceSubject) -> str:
    first = subject.open()
    varied = []
    for name, value in subject.options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        try:
            other = subject.open(**{name: value + 1})
            same = _same_tokens(first.split("train"), other.split("train"))
        except PicoError:
            continue
        varied.append(name)
        if not same and first.fingerprint == other.fingerprint:
            raise Broken(f"with {name}={value + 1} it has other tokens and the same fingerprint")
    splits = _other_split(first)
    if splits is not None and not _same_tokens(first.split("train"), splits):
        varied.append("the split")
        if first.split("train").fingerprint == splits.fingerprint:
            raise Broken("its train and val split have different tokens and the same fingerprint")
    if not varied:
        raise NotApplicable("there is no whole number among its settings to vary, and no val split")
    return f"varied: {', '.join(varied)}"


@_promise("it leaves the random streams alone", why="a draw would shift dropout: reading data must not change the training.")
def _leaves_streams_alone(subject: SourceSubject) -> None:
    with left_alone("use numpy.random.default_rng(seed)"):
        rows = subject.train()
        rows.read(sample(rows))


@_promise(
    "what does not exist is refused",
    why="a split that is silently another one, or a row number that wraps around, is an error nobody sees.",
)
def _refuses(subject: SourceSubject) -> None:
    source = subject.open()
    try:
        source.split("no such split")
    except PicoError:
        pass
    else:
        raise Broken("the split `no such split` is given rows: raise PicoError")
    rows = source.split("train")
    for number in (rows.rows, -1):
        try:
            rows.read(numpy.array([number], dtype=numpy.int64))
        except (PicoError, IndexError, ValueError):
            continue
        raise Broken(f"row {number} of {rows.rows} is read without an error")


def _vocabulary_of(source: TokenSource) -> int | None:
    from picolm.data.tokenizer import load_tokenizer

    if source.tokenizer_file is not None:
        return int(load_tokenizer(source.tokenizer_file).vocab_size)
    stated = source.manifest.get("vocab_size")
    return int(stated) if isinstance(stated, int) else None


def _other_split(source: TokenSource) -> TokenRows | None:
    try:
        return source.split("val")
    except PicoError:
        return None


def _same_tokens(first: TokenRows, second: TokenRows) -> bool:
    if (first.rows, first.row_length) != (second.rows, second.row_length):
        return False
    return numpy.array_equal(first.read(sample(first)), second.read(sample(second)))
