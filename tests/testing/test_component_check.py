"""The conformance check of components: everything registered passes, and each promise has a component that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from picolm.analyze.components.contract import COMPONENTS, Piece, Traits, absent
from picolm.records.snapshot import Snapshot
from picolm.testing.checks import check_component, complaints
from picolm.testing.checks.component import COMPONENT_PROMISES
from picolm.testing.tiny import Workshop

from .broken import broken_promises, without_a_culprit

NAME = "layers.0.attention.v_proj"


@pytest.mark.parametrize("name", [entry.name for entry in COMPONENTS.entries()])
def test_every_registered_component_keeps_its_promises(name: str, workshop: Workshop):
    assert complaints(check_component(COMPONENTS.find(name), run=workshop.run)) == []


def with_traits(**traits: Any) -> Callable[[Any], Any]:
    def add(cut: Any) -> Any:
        vars(cut)["traits"] = Traits(**traits)
        return cut

    return add


def without_docstring(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    yield Piece("v", lambda: snapshot.weights[NAME])


def untyped(snapshot: Snapshot, data_type: str, *, layer=0) -> Iterator[Piece]:  # type: ignore[no-untyped-def]
    """One weight."""
    yield Piece("v", lambda: snapshot.weights[NAME])


def wrong_default(snapshot: Snapshot, data_type: str, *, layer: int = "first") -> Iterator[Piece]:  # type: ignore[assignment]
    """One weight."""
    yield Piece("v", lambda: snapshot.weights[NAME])


def yields_tensors(snapshot: Snapshot, data_type: str) -> Iterator[Any]:
    """One weight, bare."""
    yield snapshot.weights[NAME]


def yields_nothing(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Nothing."""
    yield from ()


def same_label(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Two weights under one label."""
    for layer in (0, 1):
        yield Piece("v", lambda layer=layer: snapshot.weights[f"layers.{layer}.attention.v_proj"])  # type: ignore[misc]


def label_with_the_step(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A part that changes its name."""
    yield Piece(f"v at {snapshot.step}", lambda: snapshot.weights[NAME])


def eager(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Reads while it cuts."""
    weight = snapshot.weights[NAME]
    yield Piece("v", lambda: weight)


def three_dimensions(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A cube."""
    yield Piece("v", lambda: snapshot.weights[NAME][None])


def always_undefined(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """Never there."""
    yield Piece("v", absent("never"))


def jittered(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A weight with noise."""
    yield Piece("v", lambda: snapshot.weights[NAME] + torch.randn(1))


def draws_needlessly(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A weight, and a draw."""
    random.random()
    yield Piece("v", lambda: snapshot.weights[NAME])


def in_place(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A weight, scaled where it lies."""
    yield Piece("v", lambda: snapshot.weights[NAME].mul_(2))


@with_traits(data_types=("gradients",))
def reads_secretly(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
    """A gradient over its weight."""
    yield Piece("v", lambda: snapshot.gradients[NAME] / snapshot.weights[NAME])


@with_traits(data_types=("weights",), selects=("pattern",))
def selecting_changes(snapshot: Snapshot, data_type: str, *, pattern: str = "v") -> Iterator[Piece]:
    """A weight times the length of the pattern, which only claims to choose."""
    yield Piece("v", lambda: snapshot.weights[NAME] * (2.0 if pattern == "*" else 1.0))


CULPRITS = [
    (without_docstring, "it says in one sentence what it is"),
    (untyped, "its settings are keyword-only and typed"),
    (wrong_default, "its settings survive being written to YAML"),
    (yields_tensors, "it cuts a snapshot into labelled pieces"),
    (yields_nothing, "it cuts a snapshot into labelled pieces"),
    (same_label, "no two pieces have the same label"),
    (label_with_the_step, "every snapshot of a run gives the same labels"),
    (eager, "nothing is read before a piece is asked for it"),
    (three_dimensions, "each piece is a finite matrix, or undefined with a reason"),
    (always_undefined, "each piece is a finite matrix, or undefined with a reason"),
    (jittered, "a piece is the same twice, whatever the random streams hold"),
    (draws_needlessly, "it leaves the random streams alone"),
    (in_place, "it leaves the snapshot as it was"),
    (reads_secretly, "it reads what it declares"),
    (selecting_changes, "options that only choose pieces do not change them"),
]


@pytest.mark.parametrize(("cut", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_component_is_found_out(cut: Callable[..., Any], promise: str, workshop: Workshop):
    assert promise in broken_promises(check_component(cut, run=workshop.run))


def test_every_promise_has_a_component_that_breaks_it():
    assert without_a_culprit(COMPONENT_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_a_component_without_a_decorator_keeps_all_promises(workshop: Workshop):
    def values(snapshot: Snapshot, data_type: str) -> Iterator[Piece]:
        """The first value projection."""
        yield Piece("v", lambda: snapshot.tensors(data_type)[NAME], layer=0)

    assert complaints(check_component(values, run=workshop.run)) == []
