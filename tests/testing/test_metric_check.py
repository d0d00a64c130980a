"""The conformance check of metrics: everything registered passes, and each promise has a metric that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from picolm.analyze.metrics.contract import METRICS, metric_of
from picolm.base.errors import Undefined
from picolm.testing.checks import check_metric, complaints
from picolm.testing.checks.metric import METRIC_PROMISES, MetricSubject
from picolm.testing.checks.metric_examples import usual_examples

from .broken import broken_promises, without_a_culprit


@pytest.mark.parametrize("name", [entry.name for entry in METRICS.entries()])
def test_every_registered_metric_keeps_its_promises(name: str):
    assert complaints(check_metric(METRICS.find(name))) == []


def declaring(**traits: Any) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """A metric with traits, without putting it into the registry."""
    from dataclasses import replace

    def add(function: Callable[..., float]) -> Callable[..., float]:
        vars(function)["traits"] = replace(metric_of(function, "metric", {}, "metric").traits, **traits)
        return function

    return add


def without_docstring(x_MN: Tensor) -> float:
    return float(x_MN.sum())


def takes_anything(x_MN: Tensor, **options: Any) -> float:
    """Sum."""
    return float(x_MN.sum())


def wrong_default(x_MN: Tensor, *, power: int = "two") -> float:  # type: ignore[assignment]
    """Sum."""
    return float(x_MN.sum())


def infinite(x_MN: Tensor) -> float:
    """Infinity."""
    return float("inf")


def not_a_number_for_zero(x_MN: Tensor) -> float:
    """Largest over mean magnitude."""
    return float(x_MN.abs().max() / x_MN.abs().mean())


def silent_about_zero(x_MN: Tensor) -> float:
    """Largest over mean magnitude."""
    if not x_MN.any():
        raise Undefined("")
    return float(x_MN.abs().max() / x_MN.abs().mean())


def drawn_at_random(x_MN: Tensor) -> float:
    """Sum over rows chosen at random."""
    return float(x_MN[torch.randperm(x_MN.shape[0])[: x_MN.shape[0] // 2]].abs().sum())


def draws_needlessly(x_MN: Tensor) -> float:
    """Sum."""
    random.random()
    return float(x_MN.sum())


def sorts_in_place(x_MN: Tensor) -> float:
    """Sum of magnitudes."""
    return float(x_MN.abs_().sum())


def single_precision(x_MN: Tensor) -> float:
    """Sum."""
    return float(x_MN.float().sum())


@declaring(needs="decomposed")
def looks_at_the_stored_type(matrix: Any) -> float:
    """How many bytes an entry takes."""
    return float(matrix.stored.element_size())


@declaring(bounds=(0.0, 1.0))
def above_its_bounds(x_MN: Tensor) -> float:
    """Sum of magnitudes."""
    return float(x_MN.abs().sum()) + 1.0


@declaring(invariant=("scale",))
def depends_on_scale(x_MN: Tensor) -> float:
    """Sum of magnitudes."""
    return float(x_MN.abs().sum())


def _half(shape: tuple[int, int]) -> float:
    return 0.5


@declaring(null=_half)
def wrong_null(x_MN: Tensor) -> float:
    """Mean square."""
    return float(x_MN.square().mean())


CULPRITS = [
    (without_docstring, "it says in one sentence what it is"),
    (takes_anything, "its settings are keyword-only and typed"),
    (wrong_default, "its settings survive being written to YAML"),
    (infinite, "it returns one finite number for an ordinary matrix"),
    (not_a_number_for_zero, "it says `Undefined` with a reason where it has no value"),
    (silent_about_zero, "it says `Undefined` with a reason where it has no value"),
    (drawn_at_random, "it gives the same number twice, whatever the random streams hold"),
    (draws_needlessly, "it leaves the random streams alone"),
    (sorts_in_place, "it leaves its input as it was"),
    (single_precision, "it computes in float64"),
    (looks_at_the_stored_type, "it takes matrices stored in any precision"),
    (above_its_bounds, "its values lie within the bounds it declares"),
    (depends_on_scale, "it has the symmetries it declares"),
    (wrong_null, "what it declares for noise is what noise gives"),
]


@pytest.mark.parametrize(("function", "promise"), CULPRITS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_metric_is_found_out(function: Callable[..., float], promise: str):
    assert promise in broken_promises(check_metric(function))


def test_every_promise_has_a_metric_that_breaks_it():
    assert without_a_culprit(METRIC_PROMISES, [promise for _, promise in CULPRITS]) == set()


def test_the_check_of_a_metric_that_takes_any_option_says_which_parameter_is_to_blame():
    (found,) = [finding for finding in check_metric(takes_anything) if not finding.ok and "keyword-only" in finding.promise]
    assert "`**options`" in found.detail
    assert "never receives anything" in found.why


def test_examples_of_ones_own_replace_the_usual_ones():
    def per_column(x_MN: Tensor) -> float:
        """Sum per column of a matrix with three."""
        if x_MN.shape[1] != 3:
            raise Undefined("three columns are needed")
        return float(x_MN.sum()) / 3

    missing = [finding for finding in check_metric(per_column) if finding.promise.startswith("it returns one")]
    assert [finding.verdict for finding in missing] == ["not applicable"]
    findings = check_metric(per_column, examples=[(torch.ones(4, 3),)])
    assert next(finding for finding in findings if finding.promise.startswith("it returns one")).verdict == "holds"


def test_the_subject_is_handed_what_the_engine_would_hand_over():
    seen: list[torch.dtype] = []

    def looks(sigma_R: Tensor) -> float:
        """Largest singular value."""
        seen.append(sigma_R.dtype)
        return float(sigma_R[0])

    subject = MetricSubject(looks, metric_of(looks, "metric", {}, "metric"), usual_examples(pairs=False))
    (example,) = usual_examples(pairs=False)[0]
    assert subject.of(example) == pytest.approx(float(torch.linalg.svdvals(example)[0]))
    assert seen == [torch.float64]
