"""What a metric looks like: a function of one matrix (or of two), its options keyword-only, that returns one number.

Register it with `@metric`, or name your own function as `./mine.py:gap`: no decorator is needed. Then what it needs is
read off its parameters: two positional ones are a pair; one whose name starts with `sigma` gets the singular values;
any other gets the matrix.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor

from picolm.analyze.matrix import Matrix
from picolm.base.errors import PicoError, Undefined, suggestion
from picolm.base.registry import Registry, checked_options, options_model
from picolm.records.names import DATA_TYPES

Needs = Literal["matrix", "singular_values", "pair", "decomposed", "decomposed_pair"]
"""`matrix`, `singular_values` and `pair` hand over float64 tensors; `decomposed` and `decomposed_pair` hand over `Matrix`
objects, from which a metric takes several shared things, such as the shape and the singular values."""

PartnerChoice = Literal["last", "previous", "beside"]
"""What a comparing metric is compared with where the settings do not say: the last chosen step, the chosen step before, or
what stands beside the matrix, such as the weight under an update."""

ROWS_PERMUTED: Literal["rows permuted"] = "rows permuted"
"""Null of a similarity: its mean over fixed random orders of the partner's rows (three; one of 512 rows or more)."""

Symmetry = Literal["scale", "permutation", "rotation", "transposition", "shift"]
"""What a value may not depend on. Of one matrix: a factor, the order of rows and of columns, rotations of both sides, rows and
columns exchanged, a constant row added. Of a pair: a factor for each side, one order of rows for both, a rotation of the columns
of each side, both transposed, a constant row added to both."""

Null = Callable[..., float | None] | Literal["rows permuted"] | None
"""Value for noise: a function of the shape (or both shapes) and the metric's options, `ROWS_PERMUTED`, or not known. A
metric with a function is taken not to depend on scale: its null on a product of factors is found with Gaussian factors."""

_ROOMS = ("sparsity", "rank", "spectrum", "norms", "similarity", "correlation", "geometry", "activity", "change")
METRICS = Registry("metric", builtin_modules=tuple(f"picolm.analyze.metrics.{name}" for name in _ROOMS))

F = TypeVar("F", bound=Callable[..., float])


@dataclass(frozen=True)
class Traits:
    """What a metric says about itself."""

    needs: Needs = "matrix"
    accepts: tuple[str, ...] = DATA_TYPES
    """Data types it is meant for."""
    bounds: tuple[float, float] | None = None
    """Smallest and largest possible value."""
    null: Null = None
    """What noise of the same shape gives."""
    partner: PartnerChoice = "last"
    """What it is compared with where the settings do not say."""
    estimator: Callable[..., str] | None = None
    """Name of the estimator, from the metric's options."""
    invariant: tuple[Symmetry, ...] = ()
    """What the value does not depend on, for any options; its conformance check tries it."""
    remark: Callable[[Matrix], str] | None = None
    """What a reader of the value must know about the matrix; becomes a note of the row. Empty: nothing."""
    version: str = "1"
    """Goes up when values change; rows of another version are computed again."""


@dataclass(frozen=True)
class Metric:
    """A metric with checked options, ready to be applied."""

    name: str
    function: Callable[..., float]
    traits: Traits
    options: dict[str, Any]
    named_options: dict[str, Any]
    """The options that differ from their defaults."""

    @property
    def compares(self) -> bool:
        """Whether it needs a second matrix."""
        return self.traits.needs in ("pair", "decomposed_pair")

    def value(self, matrix: Matrix, partner: Matrix | None = None) -> float:
        """The number; raises Undefined with the reason if there is none."""
        inputs = [matrix] if partner is None else [matrix, partner]
        value = float(self.function(*(handed_over(each, self.traits.needs) for each in inputs), **self.options))
        if not math.isfinite(value):
            raise Undefined(f"the result is not finite: {value}")
        return value

    def remark(self, matrix: Matrix) -> str:
        """What a reader of the value must know."""
        return "" if self.traits.remark is None else self.traits.remark(matrix)

    def estimator(self, matrix: Matrix) -> str:
        """How the number was arrived at."""
        if self.traits.estimator is not None:
            return self.traits.estimator(**self.options)
        return matrix.decomposition if self.traits.needs == "singular_values" else ""


def metric(
    name: str,
    *,
    needs: Needs = "matrix",
    accepts: tuple[str, ...] = DATA_TYPES,
    bounds: tuple[float, float] | None = None,
    null: Null = None,
    partner: PartnerChoice = "last",
    estimator: Callable[..., str] | None = None,
    invariant: tuple[Symmetry, ...] = (),
    remark: Callable[[Matrix], str] | None = None,
    version: str = "1",
) -> Callable[[F], F]:
    """Decorator that registers a metric under `name`; the function stays a plain function."""

    def add(function: F) -> F:
        vars(function)["traits"] = Traits(needs, accepts, bounds, null, partner, estimator, invariant, remark, version)
        return METRICS.register(name)(function)

    return add


def find_metric(reference: str, options: dict[str, Any], source: str) -> Metric:
    """The metric named by `reference` with its options checked; PicoError, naming `source`, if either is wrong."""
    return metric_of(METRICS.find(reference), reference, options, source)


def metric_of(function: Any, reference: str, options: dict[str, Any], source: str) -> Metric:
    """A function as a metric, with its options checked."""
    if not callable(function):
        raise PicoError(f"{source}: `{reference}` is not a function", "a metric is a function of a matrix that returns a number")
    traits = getattr(function, "traits", None) or _inferred_traits(function, reference)
    checked = checked_options(function, options, source)
    return Metric(reference, function, traits, checked, differing_options(function, checked))


def differing_options(thing: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that differ from their defaults: a default added later changes no key of a row."""
    defaults = {name: field.default for name, field in options_model(thing).model_fields.items()}
    return {name: value for name, value in options.items() if value != defaults[name]}


def metric_function(name: str) -> Callable[..., float]:
    """The metric `name` as a function of raw tensors and options; what it needs it computes itself.

    Raises Undefined where the metric has no value. The tensors are not changed.
    """

    def measure(tensor: Tensor, partner: Tensor | None = None, **options: Any) -> float:
        chosen = find_metric(name, options, f"metric {name}")
        if chosen.compares != (partner is not None):
            raise PicoError(f"metric {name} takes {'two tensors' if chosen.compares else 'one tensor'}")
        return chosen.value(Matrix(lambda: tensor), None if partner is None else Matrix(lambda: partner))

    measure.__doc__ = inspect.getdoc(METRICS.find(name))
    return measure


def handed_over(matrix: Matrix, needs: Needs) -> Tensor | Matrix:
    """What a metric with these needs is called with."""
    if needs == "singular_values":
        return matrix.singular_values_R.clone()
    if needs in ("matrix", "pair"):
        return matrix.entries_MN.clone()
    return matrix


def _inferred_traits(function: Callable[..., float], reference: str) -> Traits:
    """Traits of a function without `@metric`; its version is the hash of the file it stands in."""
    positional = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) not in (1, 2):
        raise PicoError(
            f"metric `{reference}` takes {len(positional)} positional parameters",
            "one for a matrix, two for a pair; options come after `*`",
        )
    needs: Needs = "pair" if len(positional) == 2 else "singular_values" if positional[0].startswith("sigma") else "matrix"
    return Traits(needs=needs, version=file_hash(function))


def file_hash(thing: Callable[..., Any]) -> str:
    """Short hash of the source file an object stands in."""
    source = inspect.getsourcefile(thing)
    content = Path(source).read_bytes() if source else json.dumps(repr(thing)).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def check_data_type(chosen: Metric, data_type: str, source: str) -> None:
    """PicoError unless the metric is meant for this data type."""
    if data_type not in chosen.traits.accepts:
        raise PicoError(
            f"{source}: {chosen.name} does not take {data_type}",
            suggestion(data_type, chosen.traits.accepts) if chosen.traits.accepts else "",
        )
