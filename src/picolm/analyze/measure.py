"""One step: its snapshots are cut into pieces, every metric of a piece shares its decompositions, rows come out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch

from picolm.analyze.components.contract import Piece
from picolm.analyze.matrix import Matrix
from picolm.analyze.null import null_value
from picolm.analyze.partners import Partners
from picolm.analyze.plan import Measurement, Plan, View, canonical_json
from picolm.analyze.source import Step
from picolm.base.errors import PicoError, Undefined
from picolm.records.manifest import content
from picolm.records.table import Row


class Task(NamedTuple):
    """One piece, and what is to be measured on it: (measurement, fingerprint)."""

    view: View
    piece: Piece
    wanted: list[tuple[Measurement, str]]


def tasks_of_step(plan: Plan, step: Step, partners: Partners) -> list[Task]:
    """Every piece of a step with its measurements and their fingerprints; nothing large is read yet."""
    tasks = []
    for group in plan.by_view.values():
        view = group[0].view
        pieces = view.component.pieces(step.snapshot(view.split))
        _check_selection(group, pieces)
        made_of = [_made_of(measurement, step, partners) for measurement in group]
        for measurement in group:
            partners.prepare(measurement, pieces, step)
        for piece in pieces:
            wanted = [
                (measurement, _fingerprint(each, measurement, piece, step))
                for measurement, each in zip(group, made_of, strict=True)
                if measurement.wants(piece.layer, piece.head)
            ]
            if wanted:
                tasks.append(Task(view, piece, wanted))
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


def _made_of(measurement: Measurement, step: Step, partners: Partners) -> str:
    """Everything the values of a measurement at a step depend on, as text."""
    metric, component = measurement.metric, measurement.view.component
    ways = [metric.name, metric.traits.version, metric.options, component.name, component.traits.version]
    own = step.hashes(measurement.view.split, component.reads)
    return canonical_json([ways, component.data_type, component.making_options, own, partners.hashes(measurement, step)])


def _fingerprint(made_of: str, measurement: Measurement, piece: Piece, step: Step) -> str:
    """Hash of everything a value depends on, and of what it is about."""
    about = [step.run, step.variant, step.seed, step.step, measurement.view.split, list(piece.label), str(measurement.partner)]
    return content([about, made_of])


def measure_tasks(tasks: list[Task], step: Step, partners: Partners, *, workers: int = 1) -> Iterator[list[Row]]:
    """The rows of each task, in order. With one worker nothing about the process is touched."""
    if workers == 1:
        yield from (_measure_piece(task, step, partners) for task in tasks)
        return
    with _one_torch_thread_each(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(lambda task: _measure_piece(task, step, partners), tasks)


MOST_WORKERS = 16
"""Pieces worked on at once, at most: each holds several copies of its matrix in float64."""


def usable_cores() -> int:
    """Cores this process may use, as torch was told, up to `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(torch.get_num_threads(), cores, MOST_WORKERS)


@contextmanager
def _one_torch_thread_each() -> Iterator[None]:
    """Restores the number of torch threads afterwards: setting it in a worker changes it for later threads, too."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Result(NamedTuple):
    """What a metric gave for a matrix."""

    value: float | None = None
    null: float | None = None
    n: int | None = None
    dtype: str = ""
    estimator: str = ""
    note: str = ""
    """Why there is no value, or what to know about it."""


def _measure_piece(task: Task, step: Step, partners: Partners) -> list[Row]:
    """The rows of one piece: its matrix, and each partner, is read and decomposed once for all metrics."""
    matrix = Matrix(task.piece.load)
    found: dict[str, Matrix] = {}

    def partner_of(measurement: Measurement) -> Matrix | None:
        if measurement.partner is None:
            return None
        name = str(measurement.partner)
        if name not in found:
            found[name] = partners.matrix(measurement, task.piece, step)
        return found[name]

    rows = []
    for measurement, fingerprint in task.wanted:
        try:
            result = _apply(measurement, matrix, partner_of)
        except Exception as error:
            error.add_note(f"while measuring {measurement.metric.name} on {task.piece.label} of step {step.step}")
            raise
        rows.append(_row(measurement, fingerprint, task.piece, step, result))
    for partner in found.values():
        partner.forget_entries()
    return rows


def _apply(measurement: Measurement, matrix: Matrix, partner_of: Callable[[Measurement], Matrix | None]) -> Result:
    metric = measurement.metric
    result = Result()
    try:
        result = Result(n=_count(measurement, matrix), dtype=matrix.stored_type, estimator=metric.estimator(matrix))
        partner = partner_of(measurement)
        value = metric.value(matrix, partner)
        return result._replace(value=value, null=null_value(metric, matrix, partner), note=metric.remark(matrix))
    except Undefined as reason:
        return result._replace(note=str(reason))


def _row(measurement: Measurement, fingerprint: str, piece: Piece, step: Step, result: Result) -> Row:
    view = measurement.view
    notes = [piece.note, *(step.notes.get(data_type, "") for data_type in view.component.reads), result.note]
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
        metric=measurement.metric.name,
        options=measurement.options,
        partner="" if measurement.partner is None else str(measurement.partner),
        value=result.value,
        null=result.null,
        n=result.n,
        dtype=result.dtype,
        estimator=result.estimator,
        note="; ".join(note for note in notes if note),
        fingerprint=fingerprint,
    )


def _count(measurement: Measurement, matrix: Matrix) -> int:
    rows, columns = matrix.shape
    if measurement.metric.compares:
        return rows
    return min(rows, columns) if measurement.metric.traits.needs == "singular_values" else rows * columns
