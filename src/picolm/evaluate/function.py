"""A plain function as an evaluation: `def score(scorer, *, ...)` in a file of one's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.evaluate.contract import Evaluation, Given
from picolm.evaluate.files import hash_of_files
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score


class FunctionEvaluation(Evaluation):
    """A plain function as an evaluation."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any], reference: str) -> None:
        self._function = function
        self._options = dict(options)
        self._reference = reference

    def check(self, given: Given) -> None:
        required = [each for each in inspect.signature(self._function).parameters.values() if each.kind in _POSITIONAL]
        if len(required) != 1:
            raise PicoError(
                f"evaluation `{self._reference}` takes {len(required)} positional parameters, not one",
                "write `def score(scorer, *, ...)`: what follows the star are its settings",
            )

    def run(self, scorer: Scorer) -> list[Score]:
        return scores_from(self._function(scorer, **self._options), self._reference)

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        file = inspect.getsourcefile(self._function)
        code_hash = hash_of_files([Path(file)]) if file is not None and Path(file).is_file() else None
        return {"function": self._reference, "code_hash": code_hash, **self._options}


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def scores_from(result: Any, reference: str) -> list[Score]:
    """What a function returned, as scores: a number, a dictionary measure -> number, or scores already."""
    if isinstance(result, bool | int | float):
        return [Score(reference, "score", float(result))]
    if isinstance(result, Mapping):
        return [Score(reference, str(measure), float(value)) for measure, value in result.items()]
    if isinstance(result, Sequence) and all(isinstance(score, Score) for score in result):
        return list(result)
    raise PicoError(
        f"evaluation `{reference}` returned a {type(result).__name__}",
        "return a number, a dictionary of numbers, or a list of picolm.records.evaluation.Score",
    )
