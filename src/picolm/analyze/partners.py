"""Finds what a matrix is compared with: beside it, at another step, in another run or layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from picolm.analyze.components.contract import Piece
from picolm.analyze.matrix import Matrix
from picolm.analyze.plan import Measurement, Partner, View
from picolm.analyze.source import Source, Step
from picolm.base.errors import PicoError, Undefined

Label = tuple[str, int | None, int | None]


@dataclass
class Partners:
    """Steps and matrices compared with. Matrices of fixed places are kept, because every step is compared with them."""

    source: Source
    steps: Sequence[int]
    """The chosen steps, ascending."""
    open_run: Callable[[str], Source]
    _steps: dict[tuple[str | None, int], Step] = field(default_factory=dict)
    _matrices: dict[tuple[str | None, int, str], dict[Label, Matrix]] = field(default_factory=dict)

    def step(self, partner: Partner, step: Step) -> Step:
        """The step that holds the partner; Undefined if there is none."""
        number = step.step if partner.step is None else partner.step
        if partner.kind == "beside" or (partner.kind == "fixed" and partner.run is None and number == step.step):
            return step
        if partner.kind == "previous":
            before = [each for each in self.steps if each < step.step]
            if not before:
                raise Undefined("the first of the chosen steps has none before it")
            number = before[-1]
        return self.open_step(number, partner.run)

    def open_step(self, number: int, run: str | None = None) -> Step:
        """A step, of another run if one is named; opened once. Undefined if it does not exist."""
        key = (run, number)
        if key not in self._steps:
            source = self.source if run is None else self.open_run(run)
            if number not in source.steps():
                raise Undefined(f"{source.name} has no checkpoint of step {number}")
            self._steps[key] = source.open_step(number)
        return self._steps[key]

    def matrix(self, measurement: Measurement, piece: Piece, step: Step) -> Matrix:
        """The matrix that a piece of a step is compared with; Undefined if there is none."""
        partner, view = measurement.partner, measurement.view
        assert partner is not None
        if partner.kind == "beside":
            if piece.beside is None:
                raise Undefined("nothing stands beside it to compare it with")
            return Matrix(piece.beside)
        there = self.step(partner, step)
        label = piece.label if partner.layer is None else (piece.part, partner.layer, piece.head)
        matrices = self._of_view(partner, view, there)
        if label not in matrices:
            raise Undefined(f"{view.component.name} of step {there.step} has no such matrix")
        return matrices[label]

    def _of_view(self, partner: Partner, view: View, there: Step) -> dict[Label, Matrix]:
        key = (partner.run, there.step, view.key)
        if key in self._matrices:
            return self._matrices[key]
        pieces = view.component.pieces(there.snapshot(view.split))
        matrices = {piece.label: Matrix(piece.load) for piece in pieces}
        if partner.kind == "fixed" and partner.step is not None:
            self._matrices[key] = matrices
        return matrices

    def prepare(self, measurement: Measurement, pieces: Sequence[Piece], step: Step) -> None:
        """Find the matrices before threads ask for them; PicoError for a layer that is not there."""
        partner = measurement.partner
        if partner is None or partner.kind == "beside":
            return
        if partner.layer is not None and partner.layer not in {piece.layer for piece in pieces}:
            raise PicoError(f"{measurement.metric.name}: compare_with: there is no layer {partner.layer}")
        try:
            self._of_view(partner, measurement.view, self.step(partner, step))
        except Undefined:
            return  # each row will say so

    def hashes(self, measurement: Measurement, step: Step) -> list[str]:
        """Hashes of what the partner is read from."""
        if measurement.partner is None:
            return []
        reads = measurement.view.component.reads
        if measurement.partner.kind == "beside":
            return step.hashes(measurement.view.split, (*reads, "weights", "activations"))
        try:
            there = self.step(measurement.partner, step)
        except Undefined as reason:
            return [str(reason)]
        return [there.run, str(there.step), *there.hashes(measurement.view.split, reads)]
