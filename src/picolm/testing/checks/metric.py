"""What a metric promises: one number or a reason, the same every time, in float64, and the symmetries it declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from picolm.analyze.matrix import Matrix
from picolm.analyze.metrics.contract import Metric, handed_over, metric_of
from picolm.base.errors import Undefined
from picolm.testing.checks.metric_examples import MOVES, edge_cases, usual_examples
from picolm.testing.checks.settings import COMMON, examine, filled
from picolm.testing.findings import Broken, CheckList, Finding, NotApplicable
from picolm.testing.streams import left_alone, seeded

METRIC_PROMISES = CheckList("metric", *COMMON)
_promise = METRIC_PROMISES.promise


@dataclass(frozen=True)
class MetricSubject:
    """A metric with the options and the inputs it is examined with."""

    thing: Callable[..., float]
    metric: Metric
    examples: Sequence[tuple[Tensor, ...]]

    @property
    def options(self) -> Mapping[str, Any]:
        return self.metric.options

    def of(self, *tensors: Tensor) -> float:
        """The number as the engine gets it, on copies; raises Undefined."""
        return self.metric.value(*(matrix_of(tensor) for tensor in tensors))

    def defined(self) -> list[tuple[tuple[Tensor, ...], float]]:
        """The examples that have a value, with it; NotApplicable if none has."""
        found, reasons = [], []
        for inputs in self.examples:
            try:
                found.append((inputs, self.of(*inputs)))
            except Undefined as reason:
                reasons.append(str(reason))
        if not found:
            raise NotApplicable(f"it is undefined for every example ({reasons[0]}): give `examples` that suit it")
        return found


def matrix_of(tensor: Tensor) -> Matrix:
    """A copy of a tensor as the engine hands it over."""
    copy = tensor.clone()
    return Matrix(lambda: copy)


def check_metric(
    function: Callable[..., float],
    *,
    options: Mapping[str, Any] | None = None,
    examples: Sequence[tuple[Tensor, ...]] | None = None,
) -> list[Finding]:
    """What a metric keeps of its promises.

    `examples`: matrices, or pairs of them, it is meant for; by default Gaussian ones and a table of counts.
    """

    def subject() -> MetricSubject:
        metric = metric_of(function, "metric", filled(function, options or {}, "metric"), "metric")
        return MetricSubject(function, metric, usual_examples(metric.compares) if examples is None else examples)

    return examine(METRIC_PROMISES, function, options or {}, subject)


@_promise(
    "it returns one finite number for an ordinary matrix",
    why="the number becomes one row of the table; NaN and infinity poison every mean over them.",
)
def _number(subject: MetricSubject) -> str:
    values = []
    for inputs in subject.examples:
        try:
            value = _called(subject, inputs)
        except Undefined:
            continue
        if isinstance(value, Tensor) and value.numel() != 1:
            raise Broken(f"it returns a tensor of shape {tuple(value.shape)}: return one number")
        if not math.isfinite(float(value)):
            raise Broken(f"it returns {float(value)} for a matrix of shape {tuple(inputs[0].shape)}")
        values.append(float(value))
    if not values:
        subject.defined()
    return ", ".join(f"{value:.4g}" for value in values)


@_promise(
    "it says `Undefined` with a reason where it has no value",
    why="a NaN without a reason looks like a bug in the table; the reason becomes the note of the row. Other exceptions end the "
    "whole analysis.",
)
def _edges(subject: MetricSubject) -> str:
    undefined = []
    for name, tensor in edge_cases().items():
        inputs = (tensor, tensor.clone()) if subject.metric.compares else (tensor,)
        try:
            value = float(_called(subject, inputs))
        except Undefined as reason:
            if not str(reason).strip():
                raise Broken(f"for {name} it raises Undefined without a reason") from reason
            undefined.append(name)
            continue
        if not math.isfinite(value):
            raise Broken(f"for {name} it returns {value}: raise picolm.Undefined with the reason instead")
    return f"undefined for {', '.join(undefined)}" if undefined else "defined for every edge case"


@_promise(
    "it gives the same number twice, whatever the random streams hold",
    why="rows are computed once and kept; a number that changes from call to call cannot be compared with another.",
)
def _same_twice(subject: MetricSubject) -> None:
    for inputs, _ in subject.defined():
        values = []
        for seed in (1, 2):
            with seeded(seed):
                values.append(subject.of(*inputs))
        if values[0] != values[1]:
            raise Broken(f"two calls on the same matrix give {values[0]!r} and {values[1]!r}")


@_promise("it leaves the random streams alone", why="metrics also run inside training, where a draw would change the run.")
def _leaves_streams_alone(subject: MetricSubject) -> None:
    with left_alone("use torch.Generator().manual_seed(...)"):
        for inputs, _ in subject.defined():
            subject.of(*inputs)


@_promise(
    "it leaves its input as it was",
    why="one matrix is handed to all metrics of an analysis, and inside training it is the weight itself.",
)
def _leaves_input(subject: MetricSubject) -> None:
    for inputs, _ in subject.defined():
        handed = _handed(subject, inputs)
        before = [_content(each) for each in handed]
        subject.thing(*handed, **subject.options)
        if any(not torch.equal(_content(each), old) for each, old in zip(handed, before, strict=True)):
            raise Broken("the matrix it was given is changed after the call: work on a copy, such as `x_MN = x_MN - mean`")


@_promise(
    "it computes in float64",
    why="differences between two checkpoints are small; in float32 the sixth digit of a singular value is noise.",
)
def _precision(subject: MetricSubject) -> None:
    inputs, _ = subject.defined()[0]
    handed = _handed(subject, inputs)
    watch = _NarrowFloats()
    with watch:
        subject.thing(*handed, **subject.options)
    if watch.seen:
        raise Broken(f"{watch.seen[0]} gives {watch.seen[1]}: keep the float64 of the input")


@_promise(
    "it takes matrices stored in any precision",
    why="activations are stored in bfloat16, weights in float32; the engine hands over float64 copies of both.",
)
def _stored_types(subject: MetricSubject) -> None:
    for inputs, _ in subject.defined():
        exact = [tensor.bfloat16() for tensor in inputs]
        expected = subject.of(*(tensor.double() for tensor in exact))
        for dtype in (torch.bfloat16, torch.float32):
            value = subject.of(*(tensor.to(dtype) for tensor in exact))
            if not math.isclose(value, expected, rel_tol=1e-12, abs_tol=1e-12):
                raise Broken(f"the same entries give {expected} in float64 and {value} stored in {dtype}")


@_promise(
    "its values lie within the bounds it declares",
    why="the axis of a chart and the reader's judgement rest on them.",
)
def _bounds(subject: MetricSubject) -> str:
    bounds = subject.metric.traits.bounds
    if bounds is None:
        raise NotApplicable("it declares no bounds")
    for inputs, value in subject.defined():
        if not bounds[0] <= value <= bounds[1]:
            raise Broken(f"{value} for a matrix of shape {tuple(inputs[0].shape)} is outside {bounds}")
    return f"within {bounds}"


@_promise(
    "it has the symmetries it declares",
    why="a metric said not to depend on scale is compared between layers of different scale: if it does depend, the difference "
    "is not where the reader looks for it.",
)
def _invariances(subject: MetricSubject) -> str:
    declared = subject.metric.traits.invariant
    if not declared:
        raise NotApplicable("it declares none: `@metric(..., invariant=('scale', 'permutation'))` has them examined")
    for symmetry in declared:
        for inputs, value in subject.defined():
            moved = subject.of(*MOVES[symmetry](inputs))
            if not math.isclose(moved, value, rel_tol=1e-6, abs_tol=1e-8):
                raise Broken(f"declared invariant under {symmetry}, but {value} becomes {moved}")
    return f"invariant under {', '.join(declared)}"


@_promise(
    "what it declares for noise is what noise gives",
    why="the null is drawn beside every curve: a value above it is read as structure.",
)
def _null(subject: MetricSubject) -> str:
    null = subject.metric.traits.null
    if not callable(null):
        raise NotApplicable("it declares no function for the value of noise")
    draw = torch.Generator().manual_seed(2)
    shape = (96, 64)
    sides = 2 if subject.metric.compares else 1
    expected = null(*([shape] * sides), **subject.options)
    if expected is None:
        raise NotApplicable(f"it says nothing about noise of shape {shape}")
    values = [subject.of(*(torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(sides))) for _ in range(6)]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if abs(mean - expected) > 6 * spread / math.sqrt(len(values)) + 0.05 * abs(expected):
        raise Broken(f"noise of shape {shape} gives {mean:.4g} ± {spread:.2g}, the declared value is {expected:.4g}")
    return f"noise gives {mean:.4g}, declared is {expected:.4g}"


def _called(subject: MetricSubject, inputs: tuple[Tensor, ...]) -> Any:
    """What the function itself returns, before the engine looks at it."""
    return subject.thing(*_handed(subject, inputs), **subject.options)


def _handed(subject: MetricSubject, inputs: tuple[Tensor, ...]) -> list[Any]:
    return [handed_over(matrix_of(tensor), subject.metric.traits.needs) for tensor in inputs]


def _content(handed: Any) -> Tensor:
    return handed.entries_MN.clone() if isinstance(handed, Matrix) else handed.clone()


class _NarrowFloats(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the first operation inside that makes floats narrower than float64."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: tuple[str, str] | None = None

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        narrow = (torch.float32, torch.bfloat16, torch.float16)
        if self.seen is None and isinstance(result, Tensor) and result.dtype in narrow:
            self.seen = (str(function).removeprefix("aten."), str(result.dtype).removeprefix("torch."))
        return result
