"""What a component promises: labelled matrices, each with one name in every snapshot, read when they are asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picolm.analyze.components.contract import Component, Piece, component_of
from picolm.analyze.matrix import Product
from picolm.base.errors import PicoError, Undefined
from picolm.records.rundir import RunDirectory
from picolm.records.snapshot import Snapshot, TensorFile, open_snapshot
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone, seeded
from picolm.testing.tiny import Workshop

COMPONENT_PROMISES = CheckList("component", *COMMON)
_promise = COMPONENT_PROMISES.promise


@dataclass
class Reads:
    """Which tensors of a snapshot were read, and what they were."""

    tensors: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """(data type, plain name) -> the tensor that was handed out, the same one each time."""
    originals: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """What it held then."""

    def watching(self, data_type: str, file: TensorFile) -> TensorFile:
        """The same tensors, remembered when they are read."""

        def read(name: str) -> Tensor:
            key = (data_type, name)
            if key not in self.tensors:
                self.tensors[key] = file[name]
                self.originals[key] = self.tensors[key].clone()
            return self.tensors[key]

        return TensorFile({name: partial(read, name) for name in file}, file.reason)


@dataclass
class ComponentSubject:
    """A component with the options and the run it is examined with."""

    thing: Callable[..., Iterable[Piece]]
    options: Mapping[str, Any]
    component: Component
    run: RunDirectory

    def snapshot(self, step: int | None = None) -> tuple[Snapshot, Reads]:
        """A snapshot in the middle of the run that remembers what is read of it."""
        chosen = self.run.steps()[1] if step is None else step
        plain, reads = open_snapshot(self.run.checkpoint(chosen), chosen, "train"), Reads()
        watched = replace(
            plain,
            weights=reads.watching("weights", plain.weights),
            activations=reads.watching("activations", plain.activations),
            gradients=reads.watching("gradients", plain.gradients),
            updates=reads.watching("updates", plain.updates),
            optional={name: reads.watching(name, file) for name, file in plain.optional.items()},
        )
        return watched, reads

    def cut(self, snapshot: Snapshot, data_type: str) -> list[Piece]:
        """The pieces of one data type."""
        return list(self.thing(snapshot, data_type, **self.options))

    @property
    def data_types(self) -> tuple[str, ...]:
        return self.component.traits.data_types

    def each(self) -> Iterator[tuple[str, list[Piece], Reads]]:
        """Data type, pieces and what was read, for each data type that has pieces in this run."""
        refusals = []
        cut = 0
        for data_type in self.data_types:
            snapshot, reads = self.snapshot()
            try:
                self._try(data_type)
                pieces = self.cut(snapshot, data_type)
            except PicoError as error:
                refusals.append(f"{data_type}: {error.message}")
                continue
            cut += 1
            yield data_type, pieces, reads
        if not cut:
            raise Broken(f"it cuts nothing out of a decoder with everything captured: {'; '.join(refusals)}")

    def _try(self, data_type: str) -> None:
        """PicoError if a component that does not say which data types it knows does not know this one."""
        if "traits" in vars(self.thing):
            return
        for piece in self.cut(self.snapshot()[0], data_type)[:1]:
            with suppress(Undefined):
                piece.load()


def check_component(
    cut: Callable[..., Iterable[Piece]],
    *,
    options: Mapping[str, Any] | None = None,
    run: RunDirectory | None = None,
) -> list[Finding]:
    """What a component keeps of its promises.

    `run`: a run folder it is meant for; by default a tiny decoder's, with everything captured.
    """
    chosen = dict(options or {})
    with tempfile.TemporaryDirectory() as folder:

        def subject() -> ComponentSubject:
            component = component_of(cut, "component", None, filled(cut, chosen, "component"), "component")
            return ComponentSubject(cut, component.options, component, run or Workshop(Path(folder)).run)

        return examine(COMPONENT_PROMISES, cut, chosen, subject)


def _loaded(piece: Piece) -> Tensor | Product | None:
    """The matrix, or None where it is undefined."""
    try:
        return piece.load()
    except Undefined as reason:
        if not str(reason).strip():
            raise Broken(f"{_shown(piece)} raises Undefined without a reason") from reason
        return None


def _shown(piece: Piece) -> str:
    return f"piece {piece.part} (layer {piece.layer}, head {piece.head})"


@_promise(
    "it cuts a snapshot into labelled pieces",
    why="the label (part, layer, head) is the name under which a value is found again in tables and charts.",
)
def _pieces(subject: ComponentSubject) -> str:
    counts = []
    for data_type, pieces, _ in subject.each():
        for piece in pieces:
            if not isinstance(piece, Piece):
                raise Broken(f"{data_type}: it yields a {type(piece).__name__}, not a Piece")
            if not isinstance(piece.part, str) or not piece.part:
                raise Broken(f"{data_type}: a piece has the part {piece.part!r}")
        if not pieces:
            raise Broken(f"{data_type}: it yields nothing, without a word: raise PicoError, or a piece whose load is undefined")
        counts.append(f"{len(pieces)} of {data_type}")
    return ", ".join(counts)


@_promise("no two pieces have the same label", why="their values would be rows of the same key, and one would hide the other.")
def _unique(subject: ComponentSubject) -> None:
    for data_type, pieces, _ in subject.each():
        labels = [piece.label for piece in pieces]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise Broken(f"{data_type}: two pieces are labelled part={twice[0]}, layer={twice[1]}, head={twice[2]}")


@_promise(
    "every snapshot of a run gives the same labels",
    why="a curve over training joins values of the same label; a metric that compares finds its partner by it.",
)
def _same_labels(subject: ComponentSubject) -> None:
    for data_type, pieces, _ in subject.each():
        snapshot, _ = subject.snapshot(subject.run.steps()[2])
        before, later = [piece.label for piece in pieces], [piece.label for piece in subject.cut(snapshot, data_type)]
        if before != later:
            only = sorted(map(str, set(before) ^ set(later)))
            raise Broken(f"{data_type}: two snapshots of one run differ in {', '.join(only[:3]) or 'the order of their labels'}")


@_promise(
    "nothing is read before a piece is asked for it",
    why="an analysis cuts all steps first, to see what is missing; reading there would load every tensor of every checkpoint.",
)
def _lazy(subject: ComponentSubject) -> None:
    for data_type, _, reads in subject.each():
        if reads.tensors:
            raise Broken(f"{data_type}: cutting reads {next(iter(reads.tensors))[1]}: read it in `load`")


@_promise(
    "each piece is a finite matrix, or undefined with a reason",
    why="metrics get a tensor of at most two dimensions, or a product; any other error ends the whole analysis.",
)
def _matrices(subject: ComponentSubject) -> str:
    counts = []
    for data_type, pieces, _ in subject.each():
        defined = 0
        for piece in pieces:
            matrix = _loaded(piece)
            if matrix is None:
                continue
            defined += 1
            for part in (matrix.left_MR, matrix.right_RN) if isinstance(matrix, Product) else (matrix,):
                if not isinstance(part, Tensor) or part.ndim > 2 or part.numel() == 0:
                    raise Broken(f"{data_type}: {_shown(piece)} is {_kind(part)}, not a matrix")
                if not torch.isfinite(part).all():
                    raise Broken(f"{data_type}: {_shown(piece)} holds values that are not finite")
        counts.append(f"{defined} of {len(pieces)} {data_type}")
    if all(count.startswith("0 ") for count in counts):
        raise Broken("every piece is undefined in a run with everything captured")
    return f"defined: {', '.join(counts)}"


@_promise(
    "a piece is the same twice, whatever the random streams hold",
    why="values are computed once and kept; what changes from call to call cannot be compared.",
)
def _same_twice(subject: ComponentSubject) -> None:
    for data_type, pieces, _ in subject.each():
        for piece in pieces:
            with seeded(1):
                first = _loaded(piece)
            with seeded(2):
                second = _loaded(piece)
            if not _equal(first, second):
                raise Broken(f"{data_type}: {_shown(piece)} is another matrix the second time")


@_promise("it leaves the random streams alone", why="components also run inside training, where a draw would change the run.")
def _leaves_streams_alone(subject: ComponentSubject) -> None:
    with left_alone():
        for _, pieces, _ in subject.each():
            for piece in pieces:
                _loaded(piece)


@_promise(
    "it leaves the snapshot as it was",
    why="inside training the snapshot holds the live weights and gradients; a product in place would train another model.",
)
def _leaves_snapshot(subject: ComponentSubject) -> None:
    for data_type, pieces, reads in subject.each():
        for piece in pieces:
            _loaded(piece)
        changed = [name for (kind, name), tensor in reads.tensors.items() if not torch.equal(tensor, reads.originals[kind, name])]
        if changed:
            raise Broken(f"{data_type}: {changed[0]} is changed after its pieces were read")


@_promise(
    "it reads what it declares",
    why="a row is computed anew only if what it was made of has changed; what is read but not declared goes stale unnoticed.",
)
def _declared_reads(subject: ComponentSubject) -> str:
    seen = set()
    for data_type, pieces, reads in subject.each():
        for piece in pieces:
            _loaded(piece)
        kinds = {kind for kind, _ in reads.tensors}
        declared = set(replace(subject.component, data_type=data_type).reads)
        if undeclared := sorted(kinds - declared):
            raise Broken(f"for {data_type} it reads {', '.join(undeclared)}; declared is {', '.join(sorted(declared))}")
        seen |= kinds
    return f"it reads {', '.join(sorted(seen)) or 'nothing'}"


@_promise(
    "options that only choose pieces do not change them",
    why="options in `selects` are left out of a row's key: values under another choice are taken for the same.",
)
def _selects(subject: ComponentSubject) -> str:
    selecting = subject.component.traits.selects
    if not selecting:
        raise NotApplicable("it declares no such option")
    for data_type, pieces, _ in subject.each():
        snapshot, _ = subject.snapshot()
        wider = {**subject.options, **dict.fromkeys(selecting, "*")}
        others = {piece.label: piece for piece in subject.thing(snapshot, data_type, **wider)}
        for piece in pieces:
            if piece.label in others and not _equal(_loaded(piece), _loaded(others[piece.label])):
                raise Broken(f"{data_type}: {_shown(piece)} is another matrix with {', '.join(selecting)} = *")
    return f"choosing only: {', '.join(selecting)}"


def _kind(part: Any) -> str:
    return f"a tensor of shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"


def _equal(first: Tensor | Product | None, second: Tensor | Product | None) -> bool:
    if isinstance(first, Product) and isinstance(second, Product):
        return torch.equal(first.left_MR, second.left_MR) and torch.equal(first.right_RN, second.right_RN)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return first is None and second is None
