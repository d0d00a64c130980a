"""The conformance check of evaluations: everything registered passes, and each promise has one that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from picolm.base.errors import PicoError
from picolm.evaluate.contract import EVALUATIONS, Evaluation, Given
from picolm.evaluate.scorer import Scorer
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues
from picolm.testing.checks import check_evaluation, complaints
from picolm.testing.checks.evaluation import EVALUATION_PROMISES
from picolm.testing.tiny import Workshop

from .broken import broken_promises, without_a_culprit

TEXTS = ("the cat sees a dog.", "a big bird runs and sleeps.", "the dog.", "a red cat that hears the small bird likes a dog.")
PAIRS = [("the cat sees a dog.", "cat the dog a sees."), ("a bird runs.", "runs a bird."), ("the dog sleeps.", "sleeps dog the.")]


def lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return str(path)


def options(name: str, folder: Path, workshop: Workshop) -> dict[str, Any]:
    """A small piece of the data that a registered evaluation is meant for."""
    question = {"question": "the cat", "id": "1", "answerKey": "A", "choices": {"text": ["sees.", "dog a."], "label": ["A", "B"]}}
    pairs = [{"sentence_good": good, "sentence_bad": bad, "UID": "order", "field": "syntax"} for good, bad in PAIRS]
    endings = {"activity_label": "a", "ctx_a": "the cat", "ctx_b": "a", "endings": ["dog.", "sees.", "a.", "big."], "label": 1}
    truthful = {"question": "a cat?", "mc1_targets": {"choices": ["a cat.", "dog."], "labels": [1, 0]}}
    return {
        "perplexity": lambda: {"data": str(workshop.texts)},
        "minimal_pairs": lambda: {"data": lines(folder / "pairs.jsonl", pairs)},
        "blimp": lambda: {"data": lines(folder / "pairs.jsonl", pairs)},
        "multiple_choice": lambda: {
            "data": lines(folder / "mc.jsonl", [{"query": "the cat", "choices": ["sees.", "dog a."], "gold": 0}] * 2)
        },
        "hellaswag": lambda: {"data": lines(folder / "hs.jsonl", [endings, endings])},
        "arc_easy": lambda: {"data": lines(folder / "arc.jsonl", [question, question])},
        "truthfulqa": lambda: {"data": lines(folder / "tq.jsonl", [{**truthful, "mc2_targets": truthful["mc1_targets"]}] * 2)},
        "paloma": lambda: {"dataset_name": str(workshop.texts)},
        "paloma_original": lambda: {"dataset_name": str(workshop.texts)},
        "samples": lambda: {"prompts": ["the cat"], "max_new_tokens": 3, "temperature": 1.0},
    }.get(name, dict)()


NEEDS_ANOTHER_LIBRARY = {"lm_eval"}
"""Held to the library it wraps, in tests/evaluate/test_against_lm_eval.py."""


@pytest.mark.parametrize("name", [entry.name for entry in EVALUATIONS.entries() if entry.name not in NEEDS_ANOTHER_LIBRARY])
def test_every_registered_evaluation_keeps_its_promises(name: str, workshop: Workshop, tmp_path: Path):
    chosen = options(name, tmp_path, workshop)
    assert complaints(check_evaluation(EVALUATIONS.find(name), options=chosen, workshop=workshop)) == []


class LogProbability(Evaluation):
    """Log-probability of fixed texts, to be spoilt by its heirs."""

    headline = "log_probability"

    def __init__(self, *, data: str = "") -> None:
        self._data = data
        self._values: list[float] = []

    def check(self, given: Given) -> None:
        if self._data and not Path(self._data).exists():
            raise PicoError(f"there is no {self._data}")

    def values(self, scorer: Scorer) -> list[float]:
        return [float(value) for value in scorer.text_log_probs(TEXTS)]

    def run(self, scorer: Scorer) -> list[Score]:
        self._values = self.values(scorer)
        error = float(numpy.std(self._values)) / len(self._values) ** 0.5
        return [Score("", "log_probability", float(numpy.mean(self._values)), standard_error=error, n=len(self._values))]

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return {"data": self._data}

    def item_values(self) -> ItemValues | None:
        return ItemValues("log_probability", self._values)


class Silent(LogProbability):
    __doc__ = None


class Untyped(LogProbability):
    """Log-probability."""

    def __init__(self, *, data="") -> None:  # type: ignore[no-untyped-def]
        super().__init__(data=data)


class WrongDefault(LogProbability):
    """Log-probability."""

    def __init__(self, *, data: str = "", limit: int = "all") -> None:  # type: ignore[assignment]
        super().__init__(data=data)


class NoHeir:
    """Not an evaluation at all."""


class NotFinite(LogProbability):
    """Infinity."""

    def run(self, scorer: Scorer) -> list[Score]:
        return [Score("", "log_probability", float("inf"), standard_error=0.1, n=3)]


class Shuffled(LogProbability):
    """Scores a text chosen at random."""

    def values(self, scorer: Scorer) -> list[float]:
        return super().values(scorer)[int(torch.randint(3, (1,))) :]


class PadsWrongly(LogProbability):
    """Adds what a batch holds beside a text."""

    def values(self, scorer: Scorer) -> list[float]:
        rows = scorer._limits.tokens
        return [value + rows for value in super().values(scorer)]


class ChangesTheModel(LogProbability):
    """Rounds the weights."""

    def values(self, scorer: Scorer) -> list[float]:
        with torch.no_grad():
            for parameter in scorer.model.parameters():
                parameter.copy_(parameter.bfloat16().float())
        return super().values(scorer)


class Trains(LogProbability):
    """Leaves the model training."""

    def values(self, scorer: Scorer) -> list[float]:
        values = super().values(scorer)
        scorer.model.train()
        return values


class ClearsGradients(LogProbability):
    """Clears gradients that are not its own."""

    def values(self, scorer: Scorer) -> list[float]:
        scorer.model.zero_grad()
        return super().values(scorer)


class DrawsNeedlessly(LogProbability):
    """Draws and throws it away."""

    def values(self, scorer: Scorer) -> list[float]:
        torch.rand(1)
        return super().values(scorer)


class NoErrorBar(LogProbability):
    """A score without a standard error."""

    def run(self, scorer: Scorer) -> list[Score]:
        return [Score("", "log_probability", -3.0, n=4)]


class SettingsOfSets(LogProbability):
    """Settings that JSON does not have."""

    def settings(self, scorer: Scorer) -> dict[str, Any]:
        return {"texts": {1, 2}}


class LooksLate(LogProbability):
    """Does not check its data."""

    def check(self, given: Given) -> None:
        """Nothing."""


class OtherItems(LogProbability):
    """Items that do not add up."""

    def item_values(self) -> ItemValues | None:
        return ItemValues("log_probability", [value + 1 for value in self._values])


CULPRITS = [
    (Silent, "it says in one sentence what it is"),
    (Untyped, "its settings are keyword-only and typed"),
    (WrongDefault, "its settings survive being written to YAML"),
    (NoHeir, "it is an Evaluation, or a function of a scorer"),
    (NotFinite, "it gives scores: finite numbers, or a note that says why not"),
    (Shuffled, "it gives the same numbers twice, whatever the random streams hold"),
    (PadsWrongly, "it gives the same numbers in batches of any size"),
    (ChangesTheModel, "it leaves the model as it was"),
    (Trains, "it leaves the model as it was"),
    (ClearsGradients, "it leaves the model as it was"),
    (DrawsNeedlessly, "it leaves the random streams alone"),
    (NoErrorBar, "its scores have a standard error and a count"),
    (SettingsOfSets, "it says what its scores depend on"),
    (LooksLate, "it refuses bad input in `check`, before the first model is scored"),
    (OtherItems, "its headline and its single items agree with its scores"),
]


@pytest.mark.parametrize(("kind", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_evaluation_is_found_out(kind: Callable[..., Any], promise: str, workshop: Workshop):
    assert promise in broken_promises(check_evaluation(kind, workshop=workshop))


def test_every_promise_has_an_evaluation_that_breaks_it():
    assert without_a_culprit(EVALUATION_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_a_plain_function_keeps_all_promises_that_a_bare_number_can_keep(workshop: Workshop):
    def mean_log_probability(scorer: Scorer) -> float:
        """Mean log-probability of four sentences."""
        return float(numpy.mean(scorer.text_log_probs(TEXTS)))

    findings = check_evaluation(mean_log_probability, workshop=workshop)
    assert complaints(findings) == []
    (error_bars,) = [finding for finding in findings if "standard error" in finding.promise]
    assert error_bars.verdict == "not applicable"
