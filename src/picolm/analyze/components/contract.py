"""What a component looks like: a function that cuts a snapshot into labelled matrices, which are read when needed.

It takes a snapshot and a data type, has its options keyword-only, and yields one `Piece` per matrix. Register it with
`@component`, or name your own function as `./mine.py:circuit`: no decorator is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from picolm.analyze.matrix import Product
from picolm.analyze.metrics.contract import differing_options, file_hash
from picolm.base.errors import PicoError, Undefined, suggestion
from picolm.base.registry import Registry, checked_options
from picolm.records.names import DATA_TYPES
from picolm.records.snapshot import Snapshot

_ROOMS = ("simple", "ov_circuit", "qk_circuit", "residual", "swiglu", "embedding", "optimizer")
COMPONENTS = Registry("component", builtin_modules=tuple(f"picolm.analyze.components.{name}" for name in _ROOMS))


@dataclass(frozen=True)
class Piece:
    """One labelled matrix of a snapshot. `load` reads it, and raises Undefined with the reason if it is not there."""

    part: str
    """What it is, such as `attention.v_proj`."""
    load: Callable[[], Tensor | Product]
    layer: int | None = None
    head: int | None = None
    beside: Callable[[], Tensor | Product] | None = None
    """What it can be compared with in the same snapshot, such as the weight under an update."""
    note: str = ""
    """What a reader of the value must know."""

    @property
    def label(self) -> tuple[str, int | None, int | None]:
        """What the piece is called in every snapshot."""
        return self.part, self.layer, self.head


Cut = Callable[..., Iterable[Piece]]
F = TypeVar("F", bound=Cut)


@dataclass(frozen=True)
class Traits:
    """What a component says about itself."""

    data_types: tuple[str, ...] = DATA_TYPES
    """Data types it knows."""
    reads: dict[str, tuple[str, ...]] | None = None
    """Data type -> stored data types it is made of; None: just the data type itself."""
    selects: tuple[str, ...] = ()
    """Options that only choose pieces and do not change them: no part of a row's key."""
    version: str = "1"


@dataclass(frozen=True)
class Component:
    """A component with checked options, for one data type."""

    name: str
    cut: Cut
    traits: Traits
    data_type: str
    options: dict[str, Any]
    making_options: dict[str, Any]
    """The options that change the pieces and do not only choose among them."""
    named_options: dict[str, Any]
    """Those of them that differ from their defaults."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Stored data types the pieces are made of."""
        return (self.traits.reads or {}).get(self.data_type, (self.data_type,))

    def pieces(self, snapshot: Snapshot) -> list[Piece]:
        """All pieces of a snapshot; nothing large is read yet."""
        return list(self.cut(snapshot, self.data_type, **self.options))


def component(
    name: str,
    *,
    data_types: tuple[str, ...] = DATA_TYPES,
    reads: dict[str, tuple[str, ...]] | None = None,
    selects: tuple[str, ...] = (),
    version: str = "1",
) -> Callable[[F], F]:
    """Decorator that registers a component under `name`; the function stays a plain function."""

    def add(cut: F) -> F:
        vars(cut)["traits"] = Traits(data_types, reads, selects, version)
        return COMPONENTS.register(name)(cut)

    return add


def find_component(reference: str, data_type: str, options: dict[str, Any], source: str) -> Component:
    """The component named by `reference` for a data type; PicoError, naming `source`, if something does not fit."""
    return component_of(COMPONENTS.find(reference), reference, data_type, options, source)


def component_of(cut: Any, reference: str, data_type: str | None, options: dict[str, Any], source: str) -> Component:
    """A function as a component for a data type (None: the first that it knows), with its options checked."""
    if not callable(cut):
        raise PicoError(
            f"{source}: `{reference}` is not a function", "a component is a function that yields pieces of a snapshot"
        )
    traits = getattr(cut, "traits", None) or Traits(reads=_all_stored(), version=file_hash(cut))
    data_type = traits.data_types[0] if data_type is None else data_type
    if data_type not in traits.data_types:
        raise PicoError(f"{source}: {reference} has no {data_type}", suggestion(data_type, traits.data_types))
    checked = checked_options(cut, options, source)
    making = {name: value for name, value in checked.items() if name not in traits.selects}
    return Component(reference, cut, traits, data_type, checked, making, differing_options(cut, making))


def _all_stored() -> dict[str, tuple[str, ...]]:
    """A user's component may read anything, so its rows depend on everything."""
    return dict.fromkeys(DATA_TYPES, ("weights", "activations", "gradients", "updates"))


def absent(reason: str) -> Callable[[], Tensor]:
    """A `load` for a piece that is not there."""

    def load() -> Tensor:
        raise Undefined(reason)

    return load


def read(snapshot: Snapshot, data_type: str, name: str) -> Tensor:
    """A stored tensor; Undefined with the reason if it was not captured."""
    tensors = snapshot.tensors(data_type)
    if name not in tensors:
        raise Undefined(tensors.reason or f"the {data_type} of {name} were not captured")
    return tensors[name]
