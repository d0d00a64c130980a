from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.evaluate.contract import Evaluation, Given
from picolm.evaluate.scorer import Scorer
from picolm.evaluate.sharing import TokenSequence
from picolm.records.evaluation import Score


class SecondHalf(Evaluation):
    """Share of held-out rows whose second half the model would have written itself, given the first."""

    def __init__(self, *, rows: int = 100) -> None:
        self._rows = rows
        self._sequences: list[TokenSequence] = []
        self._data = ""

    def check(self, given: Given) -> None:
        if given.data is None:
            raise PicoError("second_half scores the rows of a run's own data", "evaluate a run")
        val = given.data.split("val")
        tokens = val.read(numpy.arange(min(self._rows, val.rows)))
        self._sequences = [TokenSequence(row, start=len(row) // 2 + 1) for row in tokens]
        self._data = val.fingerprint

    def run(self, scorer: Scorer) -> list[Score]:
        right = scorer.score(self._sequences).is_greedy.astype(float)
        error = float(right.std()) / len(right) ** 0.5
        return [Score("second_half", "accuracy", float(right.mean()), standard_error=error, n=len(right), baseline=0.0)]

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return {"rows": len(self._sequences), "data": self._data}
