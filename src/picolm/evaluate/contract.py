"""What an evaluation looks like, and the section `evaluation` of a training file that names some.

An evaluation is a class whose keyword-only parameters are its settings, or simply a function `score(scorer, *, ...)` that
returns a number, a dictionary of numbers or a list of scores. Name it by short name or as `./mine.py:score`.
"""

from __future__ import annotations

import inspect
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import pydantic
from pydantic import PositiveFloat, PositiveInt

from picolm.base.config import OPERATIONAL, AlsoWritten, Settings
from picolm.base.errors import PicoError
from picolm.base.registry import Named, Registry, checked_options
from picolm.records.evaluation import Score
from picolm.records.items import ItemValues

if TYPE_CHECKING:
    from torch import nn

    from picolm.data.contract import TokenSource
    from picolm.evaluate.processes import Processes
    from picolm.evaluate.scorer import Scorer, Tokenizer

_BUILTIN = ("perplexity", "minimal_pairs", "choice", "hellaswag", "arc", "truthfulqa", "paloma", "samples", "harness")
EVALUATIONS = Registry(
    "evaluation",
    builtin_modules=tuple(f"picolm.evaluate.{name}" for name in _BUILTIN),
)


LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""What an evaluation of a run may be called: its items are kept in a file of that name."""


@dataclass(frozen=True)
class Given:
    """What an evaluation may use and must agree with, known before the first model is scored."""

    data: TokenSource | None = None
    """The prepared data of the run, if there is a run."""
    tokenizer: Tokenizer | None = None
    max_seq_len: int | None = None
    """The longest sequence the model accepts, in tokens; None if it is not known yet."""
    vocab_size: int | None = None
    """How many token ids the model knows; None if it is not known yet."""


class Evaluation(ABC):
    """Turns a model into scores. Keyword-only parameters of `__init__` are the settings; `__init__` reads no files."""

    headline: str = ""
    """The measure that stands for the evaluation in a table; empty for the first."""

    @abstractmethod
    def check(self, given: Given) -> None:
        """Read the data; PicoError for anything that would go wrong later. Called once, before `run`."""

    @abstractmethod
    def run(self, scorer: Scorer) -> list[Score]:
        """The scores of the scorer's model; `Score.evaluation` is filled in by the caller. Called once per checkpoint."""

    @abstractmethod
    def settings(self, scorer: Scorer) -> dict[str, Any]:
        """What the scores depend on besides the model: hash of the data, window, delimiter, ... as JSON values."""

    def samples(self) -> list[dict[str, str]]:
        """Texts of the last run to be kept beside the scores, such as a prompt and its continuation. Most have none."""
        return []

    def item_values(self) -> ItemValues | None:
        """Values of single items of the last run, for paired comparison; None where there is nothing to pair."""
        return None


class EvaluationEntry(Named):
    """An evaluation named in YAML with its options: `blimp` or `{name: perplexity, data: ./texts}`."""

    label: str | None = None
    """Name under which the scores are kept; null for the evaluation's own name. Needed to use one evaluation twice."""

    every_n_steps: PositiveInt | None = None
    """Updates between runs of this evaluation, and at the last; null: at every checkpoint."""

    @pydantic.model_serializer(mode="wrap")
    def _write_plain_name(self, handler: Callable[[Any], Any]) -> Any:
        own = {"label": self.label, "every_n_steps": self.every_n_steps}
        options = {name: value for name, value in own.items() if value is not None} | self.options
        return {"name": self.name, **options} if options else self.name

    @property
    def row_label(self) -> str:
        """The name in `Score.evaluation`."""
        return self.label or self.name.rpartition(":")[2]


class PalomaSection(Settings):
    """`evaluation.paloma`: defaults for `paloma` and `paloma_original`, under the names of the original."""

    dataset_name: Annotated[str | None, OPERATIONAL] = "pico-lm/pretokenized-paloma-tinsy"
    """Texts or tokens to score: a local path, else a Hub name. Null switches the evaluation off."""

    dataset_split: Annotated[str, OPERATIONAL] = "val"
    """Split that is scored."""

    max_length: Annotated[PositiveInt, OPERATIONAL] = 2048
    """Tokens per window; the model's own limit where that is shorter."""

    batch_size: Annotated[PositiveInt, OPERATIONAL] = 16
    """Windows of full length per forward pass. Has no effect on the scores."""


class EvaluationConfig(Settings):
    """`evaluation`: what is measured at every checkpoint. Observes only, so all of it may change under an existing run."""

    metrics: Annotated[tuple[EvaluationEntry, ...] | None, OPERATIONAL, AlsoWritten({"type": "string"}, {"type": "object"})] = (
        EvaluationEntry(name="paloma"),
    )
    """Evaluations by name, with options: `[perplexity, {name: blimp, limit: 100}, ./mine.py:score]`. Null: none."""

    paloma: PalomaSection = PalomaSection()

    budget: Annotated[PositiveFloat | None, OPERATIONAL] = None
    """Largest share of the training time that evaluation may take, such as 0.1; runs that would exceed it are left out, which
    is recorded. The first run of each and the last step are never left out. Null: no limit."""

    @pydantic.field_validator("metrics", mode="before")
    @classmethod
    def _accept_one_name(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @property
    def entries(self) -> tuple[EvaluationEntry, ...]:
        """The evaluations that are switched on."""
        return tuple(entry for entry in self.metrics or () if self.options_of(entry).get("dataset_name", "") is not None)

    def options_of(self, entry: EvaluationEntry) -> dict[str, Any]:
        """An entry's options over the defaults in the section of the same name."""
        defaults = self.paloma.model_dump() if entry.name in ("paloma", "paloma_original") else {}
        return {**defaults, **entry.options}


@dataclass(frozen=True)
class NamedEvaluation:
    """An evaluation with its label and what it is given: ready to be checked, then run at checkpoints."""

    label: str
    evaluation: Evaluation
    given: Given
    every_n_steps: int | None = None

    def check(self) -> None:
        """Refuse bad input; PicoError says which evaluation it belongs to."""
        try:
            self.evaluation.check(self.given)
        except PicoError as error:
            raise PicoError(f"evaluation `{self.label}`: {error.message}", error.hint) from error


def build_evaluations(
    config: EvaluationConfig,
    *,
    data: TokenSource | None = None,
    tokenizer: Tokenizer | None = None,
    max_seq_len: int | None = None,
    vocab_size: int | None = None,
    source: str = "evaluation.metrics",
) -> list[NamedEvaluation]:
    """The evaluations a configuration names, their options checked; no data is read until `check`."""
    given = Given(data, tokenizer, max_seq_len, vocab_size)
    labels: set[str] = set()
    built = []
    for entry in config.entries:
        if entry.row_label in labels:
            raise PicoError(
                f"{source}: two evaluations are called `{entry.row_label}`",
                f"give one a name of its own: {{name: {entry.name}, label: ...}}",
            )
        if not LABEL.fullmatch(entry.row_label):
            raise PicoError(
                f"{source}: label {entry.row_label!r} cannot name a file", "letters, digits, dot, dash and underscore"
            )
        labels.add(entry.row_label)
        evaluation = _build(entry.name, config.options_of(entry), source)
        built.append(NamedEvaluation(entry.row_label, evaluation, given, entry.every_n_steps))
    return built


def check_evaluations(evaluations: Sequence[NamedEvaluation]) -> None:
    """Check all; one PicoError that names everything wrong, so that a person mends it in one go."""
    problems: list[PicoError] = []
    for named in evaluations:
        try:
            named.check()
        except PicoError as error:
            problems.append(error)
    if problems:
        hints = "\n".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))
        raise PicoError("\n".join(problem.message for problem in problems), hints)


def _build(name: str, options: dict[str, Any], source: str) -> Evaluation:
    thing = EVALUATIONS.find(name)
    is_class = inspect.isclass(thing) and issubclass(thing, Evaluation)
    if not is_class and not inspect.isfunction(thing):
        raise PicoError(
            f"{source}: `{name}` is neither an Evaluation nor a function",
            "write `def score(scorer, *, ...)`, or a class with the methods of picolm.evaluate.contract.Evaluation",
        )
    checked = checked_options(thing, options, f"{source}: {name}")
    if not is_class:
        from picolm.evaluate.function import FunctionEvaluation

        return FunctionEvaluation(thing, checked, name)
    evaluation: Evaluation = thing(**checked)
    return evaluation


class Outcome(NamedTuple):
    """The scores of some evaluations, and by label what each was computed with."""

    scores: list[Score]
    settings: dict[str, Any]


def run_evaluations(
    evaluations: Sequence[NamedEvaluation],
    model: nn.Module,
    tokenizer: Tokenizer | None,
    *,
    device: Any = None,
    precision: str = "32-true",
    prefix_token_id: int | None = None,
    processes: Processes | None = None,
) -> Outcome:
    """Score a model with every evaluation; leaves the model, its gradients and all random streams as they were.

    With `processes` (see `picolm.evaluate.processes.all_processes`) every process must call this, and each gets all scores.
    """
    from picolm.evaluate.scorer import Scorer
    from picolm.evaluate.undisturbed import random_streams_kept

    scores: list[Score] = []
    settings: dict[str, Any] = {}
    scorer = Scorer(model, tokenizer, device=device, precision=precision, prefix_token_id=prefix_token_id, processes=processes)
    with random_streams_kept(), scorer:
        for named in evaluations:
            started = time.perf_counter()
            scores += [_storable(replace(score, evaluation=named.label)) for score in named.evaluation.run(scorer)]
            seconds = round(time.perf_counter() - started, 3)
            settings[named.label] = {**named.evaluation.settings(scorer), **scorer.settings(), "seconds": seconds}
            samples = named.evaluation.samples()
            settings[named.label] |= {"samples": samples} if samples else {}
    return Outcome(scores, settings)


def _storable(score: Score) -> Score:
    """The score with a note instead of a value that is not finite: JSON has none, and a reader must see why."""
    if score.value is not None and not math.isfinite(score.value):
        note = f"{score.note}; the value is {score.value}".removeprefix("; ")
        return replace(score, value=None, standard_error=None, note=note)
    if score.standard_error is not None and not math.isfinite(score.standard_error):
        return replace(score, standard_error=None)
    return score
