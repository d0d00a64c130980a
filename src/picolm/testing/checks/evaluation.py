"""What an evaluation promises: the same scores twice and in any batches, an error bar, and a model left as it was."""

from __future__ import annotations

import copy
import inspect
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from picolm.base.errors import PicoError
from picolm.data.sources import open_prepared
from picolm.evaluate.contract import Evaluation, Given
from picolm.evaluate.function import FunctionEvaluation
from picolm.evaluate.scorer import Scorer
from picolm.model.contract import LanguageModel
from picolm.records.evaluation import Score
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone, seeded
from picolm.testing.tiny import Workshop

EVALUATION_PROMISES = CheckList("evaluation", *COMMON)
_promise = EVALUATION_PROMISES.promise
NOWHERE = "/no/such/folder/of/data"


@dataclass(frozen=True)
class EvaluationSubject:
    """An evaluation with the options and the model it is examined with."""

    thing: Callable[..., Any]
    options: Mapping[str, Any]
    given: Given
    the_model: LanguageModel

    def make(self, **changes: Any) -> Evaluation:
        """A new evaluation, its input not checked yet."""
        options = {**self.options, **changes}
        if inspect.isclass(self.thing):
            evaluation: Any = self.thing(**options)
            return evaluation  # type: ignore[no-any-return]
        return FunctionEvaluation(self.thing, options, getattr(self.thing, "__name__", "evaluation"))

    @property
    def is_function(self) -> bool:
        return not inspect.isclass(self.thing)

    def model(self) -> LanguageModel:
        """The model, a new copy, training as it would be inside a run."""
        return copy.deepcopy(self.the_model).train()

    def scores(self, model: LanguageModel | None = None, *, batch_tokens: int | None = None) -> list[Score]:
        """The scores of the model, by a new evaluation."""
        evaluation = self.make()
        evaluation.check(self.given)
        with Scorer(model or self.model(), self.given.tokenizer, batch_tokens=batch_tokens) as scorer:
            return evaluation.run(scorer)


def check_evaluation(
    thing: Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    workshop: Workshop | None = None,
) -> list[Finding]:
    """What an evaluation keeps of its promises. `options`: a small piece of the data it is meant for."""
    chosen = dict(options or {})
    with tempfile.TemporaryDirectory() as folder:
        place = workshop or Workshop(Path(folder))

        def subject() -> EvaluationSubject:
            settings = filled(thing, chosen, "evaluation", data=str(place.texts))
            given = Given(open_prepared(place.data), place.tokenizer, place.model().max_seq_len)
            return EvaluationSubject(thing, settings, given, place.model())

        return examine(EVALUATION_PROMISES, thing, chosen, subject)


@_promise(
    "it is an Evaluation, or a function of a scorer",
    why="the trainer and `pico evaluate` call `check`, `run` and `settings`, or the function with one scorer.",
)
def _kind(subject: EvaluationSubject) -> str:
    if inspect.isclass(subject.thing) and not issubclass(subject.thing, Evaluation):
        raise Broken("the class does not inherit from picolm.evaluate.contract.Evaluation")
    subject.make().check(subject.given)
    return "a function" if subject.is_function else "an Evaluation"


@_promise(
    "it gives scores: finite numbers, or a note that says why not",
    why="a score that is not a number cannot be stored, and a missing one without a note cannot be explained.",
)
def _scores(subject: EvaluationSubject) -> str:
    scores = subject.scores()
    for score in scores:
        if not isinstance(score, Score):
            raise Broken(f"it returns a {type(score).__name__} among its scores")
        if score.value is None and not score.note:
            raise Broken(f"{score.measure} of {score.group} has neither a value nor a note")
        if score.value is not None and not math.isfinite(score.value):
            raise Broken(f"{score.measure} of {score.group} is {score.value}")
    keys = [(score.measure, score.group) for score in scores]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise Broken(f"there are two scores of measure {twice[0]} and group {twice[1]}")
    return f"{len(scores)} scores"


@_promise(
    "it gives the same numbers twice, whatever the random streams hold",
    why="a difference between two checkpoints must come from the checkpoints.",
)
def _same_twice(subject: EvaluationSubject) -> None:
    runs = []
    for seed in (1, 2):
        with seeded(seed):
            runs.append(_by_key(subject.scores()))
    if different := [key for key in runs[0] if runs[0][key] != runs[1].get(key)]:
        raise Broken(f"{' of '.join(different[0])} is {runs[0][different[0]]}, then {runs[1].get(different[0])}")


@_promise(
    "it gives the same numbers in batches of any size",
    why="the batch is a matter of memory: a machine with less of it would report other scores.",
)
def _batches(subject: EvaluationSubject) -> None:
    large, small = (_by_key(subject.scores(batch_tokens=tokens)) for tokens in (2048, 24))
    for key, value in large.items():
        other = small.get(key)
        if value is None or other is None:
            if value != other:
                raise Broken(f"{' of '.join(key)} is {value} in large batches and {other} in small ones")
        elif not math.isclose(value, other, rel_tol=1e-4, abs_tol=1e-5):
            raise Broken(f"{' of '.join(key)} is {value} in large batches and {other} in small ones")


@_promise(
    "it leaves the model as it was",
    why="it runs inside training: a weight, a gradient or a mode that is changed there makes another run.",
)
def _leaves_model(subject: EvaluationSubject) -> None:
    model = subject.model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    frozen = next(module for module in model.modules() if module is not model)
    frozen.eval()
    before = {name: (parameter.detach().clone(), parameter.requires_grad) for name, parameter in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    subject.scores(model)
    if [module.training for module in model.modules()] != modes:
        raise Broken("afterwards some module is in another mode (train or eval) than before")
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter, before[name][0]) or parameter.requires_grad != before[name][1]:
            raise Broken(f"afterwards {name} is another tensor than before")
        if parameter.grad is None or not bool((parameter.grad == 1).all()):
            raise Broken(f"afterwards the gradient of {name} is another than before: compute under torch.no_grad()")


@_promise("it leaves the random streams alone", why="a draw inside training would shift dropout from that checkpoint on.")
def _leaves_streams_alone(subject: EvaluationSubject) -> None:
    with left_alone("use torch.Generator().manual_seed(...)"):
        subject.scores()


@_promise(
    "its scores have a standard error and a count",
    why="without them nobody can say whether two models differ; n is what they rest on.",
)
def _error_bars(subject: EvaluationSubject) -> str:
    scores = [score for score in subject.scores() if score.value is not None]
    if not scores:
        raise NotApplicable("it gives no numbers")
    if subject.is_function and all(score.standard_error is None and score.n is None for score in scores):
        raise NotApplicable("bare numbers carry none: return picolm.records.evaluation.Score to give one")
    for score in scores:
        if score.n is None or (score.standard_error is None and score.n > 1):
            lacks = "count n" if score.n is None else "standard error"
            raise Broken(f"{score.measure} of {score.group} has no {lacks}")
        if score.standard_error is not None and score.standard_error < 0:
            raise Broken(f"{score.measure} of {score.group} has the standard error {score.standard_error}")
    return f"{len(scores)} scores"


@_promise(
    "it says what its scores depend on",
    why="scores of two runs may be compared only if data, window and delimiter are the same; this is where they are kept.",
)
def _settings(subject: EvaluationSubject) -> str:
    evaluation = subject.make()
    evaluation.check(subject.given)
    with Scorer(subject.model(), subject.given.tokenizer) as scorer:
        evaluation.run(scorer)
        settings = evaluation.settings(scorer)
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Broken(f"its settings cannot be written as JSON: {error}") from error
    if subject.options and not settings:
        raise Broken("it has options and says nothing about them")
    return f"settings: {', '.join(settings)}"


@_promise(
    "it refuses bad input in `check`, before the first model is scored",
    why="a run that dies of a missing file at its first checkpoint has wasted the hours before it.",
)
def _refuses(subject: EvaluationSubject) -> str:
    named = [name for name in ("data", "dataset_name") if isinstance(subject.options.get(name), str)]
    if not named:
        raise NotApplicable("it has no setting `data`")
    evaluation = subject.make(**{named[0]: NOWHERE})
    try:
        evaluation.check(subject.given)
    except PicoError as error:
        return f"refused: {error.message[:80]}"
    raise Broken(f"check accepts {named[0]}={NOWHERE}")


@_promise(
    "its headline and its single items agree with its scores",
    why="the headline stands for it in tables; single items are what two models are compared on in pairs.",
)
def _headline(subject: EvaluationSubject) -> str:
    evaluation = subject.make()
    evaluation.check(subject.given)
    with Scorer(subject.model(), subject.given.tokenizer) as scorer:
        scores = evaluation.run(scorer)
    overall = {score.measure: score.value for score in scores if score.group == "all"}
    if evaluation.headline and scores and evaluation.headline not in overall:
        raise Broken(f"its headline is {evaluation.headline}; of all data it gives {', '.join(overall) or 'no score'}")
    items = evaluation.item_values()
    if items is None:
        raise NotApplicable("it keeps no values of single items")
    weights = items.weights or [1.0] * len(items.values)
    if len(weights) != len(items.values) or (items.clusters is not None and len(items.clusters) != len(items.values)):
        raise Broken(f"{len(items.values)} items have {len(weights)} weights and {len(items.clusters or ())} clusters")
    mean, value = sum(items.values) / sum(weights), overall.get(items.measure)
    if value is None or not math.isclose(mean, value, rel_tol=1e-4, abs_tol=1e-6):
        raise Broken(f"the mean {items.measure} of its items is {mean:.6g}, the score is {value}")
    return f"{len(items.values)} items"


def _by_key(scores: list[Score]) -> dict[tuple[str, str], float | None]:
    return {(score.measure, score.group): score.value for score in scores}
