"""One step: its snapshots are cut into pieces, every metric of a piece shares its decompositions, rows come out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from picolm.analyze.components.contract import Piece
from picolm.analyze.matrix import Matrix, Product
from picolm.analyze.plan import Measurement, Plan, View, canonical_json
from picolm.base.errors import PicoError, Undefined
from picolm.records.manifest import content
from picolm.records.snapshot import Snapshot
from picolm.records.table import Row

Label = tuple[str, int | None, int | None]


@dataclass(frozen=True)
class Step:
    """One step of a run, as far as measuring needs it."""

    run: str
    step: int
    snapshot: Callable[[str], Snapshot]
    """Split -> snapshot."""
    hashes: Callable[[str, tuple[str, ...]], list[str]]
    """Split and data types -> hashes of what they are read from."""
    variant: str = ""
    seed: int | None = None
    tokens: int | None = None


class Task(NamedTuple):
    """One piece, and what is to be measured on it: (measurement, fingerprint)."""

    view: View
    piece: Piece
    wanted: list[tuple[Measurement, str]]


@dataclass
class Partners:
    """Matrices of the steps compared with. They are kept, because every step is compared with them."""

    open_step: Callable[[int], Step]
    _steps: dict[int, Step] = field(default_factory=dict)
    _pieces: dict[tuple[int, str], dict[Label, Matrix]] = field(default_factory=dict)

    def step(self, number: int) -> Step:
        """The step compared with."""
        if number not in self._steps:
            self._steps[number] = self.open_step(number)
        return self._steps[number]

    def matrix(self, number: int, view: View, label: Label) -> Matrix:
        """The matrix with the same label there."""
        matrices = self._pieces.get((number, view.key))
        if matrices is None:
            pieces = view.component.pieces(self.step(number).snapshot(view.split))
            matrices = self._pieces[number, view.key] = {piece.label: Matrix(piece.load) for piece in pieces}
        if label not in matrices:
            raise Undefined(f"step {number} has no such matrix")
        return matrices[label]


def tasks_of_step(plan: Plan, step: Step, partners: Partners) -> list[Task]:
    """Every piece of a step with its measurements and their fingerprints; nothing large is read yet."""
    tasks = []
    for group in plan.by_view.values():
        view = group[0].view
        pieces = view.component.pieces(step.snapshot(view.split))
        _check_selection(group, pieces)
        own = step.hashes(view.split, view.component.reads)
        for measurement in group:
            if measurement.partner_step is not None:
                partners.matrix(measurement.partner_step, view, pieces[0].label)
        for piece in pieces:
            wanted = [measurement for measurement in group if measurement.wants(piece.layer, piece.head)]
            if wanted:
                tasks.append(Task(view, piece, [(each, _fingerprint(each, piece, step, own, partners)) for each in wanted]))
    return tasks


def _check_selection(group: list[Measurement], pieces: list[Piece]) -> None:
    for measurement in group:
        for setting, wanted, known in (
            ("layers", measurement.layers, {piece.layer for piece in pieces}),
            ("heads", measurement.heads, {piece.head for piece in pieces}),
        ):
            missing = sorted(set(wanted or ()) - known)
            if missing:
                numbers = sorted(number for number in known if number is not None)
                raise PicoError(
                    f"{measurement.view.component.name}: {setting}: there is no {setting[:-1]} {missing[0]}",
                    f"there are {numbers[0]} to {numbers[-1]}" if numbers else f"it has no {setting}",
                )


def _fingerprint(measurement: Measurement, piece: Piece, step: Step, own: list[str], partners: Partners) -> str:
    """Hash of everything the value depends on, and of what it is about."""
    metric, component = measurement.metric, measurement.view.component
    partner: list[str] = []
    if measurement.partner_step is not None:
        partner = partners.step(measurement.partner_step).hashes(measurement.view.split, component.reads)
    about = [step.run, step.variant, step.seed, step.step, measurement.view.split, list(piece.label), measurement.partner]
    made_of = [metric.name, metric.traits.version, metric.options, component.name, component.traits.version]
    return content(canonical_json([about, made_of, component.data_type, component.making_options, own, partner]))


def measure_tasks(tasks: list[Task], step: Step, partners: Partners, *, workers: int = 1) -> Iterator[list[Row]]:
    """The rows of each task, in order. With one worker nothing about the process is touched."""
    if workers == 1:
        yield from (_measure_piece(task, step, partners) for task in tasks)
        return
    with _one_torch_thread_each(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(lambda task: _measure_piece(task, step, partners), tasks)


def usable_cores() -> int:
    """Cores this process may use, as torch was told."""
    return min(torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def _one_torch_thread_each() -> Iterator[None]:
    """Restores the number of torch threads afterwards: setting it in a worker changes it for later threads, too."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure_piece(task: Task, step: Step, partners: Partners) -> list[Row]:
    matrix = Matrix(task.piece.load)
    return [_measure(each, fingerprint, task.piece, matrix, step, partners) for each, fingerprint in task.wanted]


def _measure(measurement: Measurement, fingerprint: str, piece: Piece, matrix: Matrix, step: Step, partners: Partners) -> Row:
    metric, view = measurement.metric, measurement.view
    value: float | None = None
    null: float | None = None
    n: int | None = None
    note, dtype, estimator = piece.note, "", ""
    try:
        dtype, n, estimator = _stored_type(matrix), _count(measurement, matrix), metric.estimator(matrix)
        partner = None
        if measurement.partner_step is not None:
            partner = partners.matrix(measurement.partner_step, view, piece.label)
        value = metric.value(matrix, partner)
        if not matrix.is_product_of_fewer_columns:
            null = metric.null(*(each.shape for each in (matrix, partner) if each is not None))
    except Undefined as reason:
        note = f"{note}; {reason}" if note else str(reason)
    return Row(
        run=step.run,
        variant=step.variant,
        seed=step.seed,
        step=step.step,
        tokens=step.tokens,
        split=view.split,
        data_type=view.component.data_type,
        component=view.component.name,
        part=piece.part,
        layer=piece.layer,
        head=piece.head,
        metric=metric.name,
        options=measurement.options,
        partner=measurement.partner,
        value=value,
        null=null,
        n=n,
        dtype=dtype,
        estimator=estimator,
        note=note,
        fingerprint=fingerprint,
    )


def _stored_type(matrix: Matrix) -> str:
    stored = matrix.stored.left_MR if isinstance(matrix.stored, Product) else matrix.stored
    return str(stored.dtype).removeprefix("torch.")


def _count(measurement: Measurement, matrix: Matrix) -> int:
    rows, columns = matrix.shape
    if measurement.metric.compares:
        return rows
    return min(rows, columns) if measurement.metric.traits.needs == "singular_values" else rows * columns
