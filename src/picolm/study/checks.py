"""Gates: what must hold before the predictions are looked at. One class per kind of check, asked alike by the judge."""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from picolm.base.config import Settings
from picolm.base.errors import PicoError
from picolm.study.config import StudyConfig
from picolm.study.judgement import CheckResult
from picolm.study.matrix import Cell
from picolm.study.measures import Measured, MeasuredRun, measure_run
from picolm.study.series import RunFiles, Series, read_series
from picolm.study.spec_checks import (
    HeadroomCheck,
    InvariantCheck,
    ManipulationCheck,
    NoiseFloorCheck,
    PositiveControlCheck,
    SeriesOfVariants,
)
from picolm.study.statistics.power import sd_upper_limit

C = TypeVar("C", bound=Settings)


@dataclass(frozen=True)
class Material:
    """What checks may look at."""

    study: StudyConfig
    data: Measured
    cells: Sequence[Cell]
    seeds: tuple[int, ...]
    """Seeds all of whose runs ended."""

    def runs(self, variants: Sequence[str]) -> list[MeasuredRun]:
        """Complete runs of the counting seeds, of the given variants (all, if none are named)."""
        chosen = variants or tuple(self.study.variants)
        found = (self.data.runs[variant, seed] for variant in chosen for seed in self.seeds)
        return [run for run in found if run.cell.status == "complete"]

    def tuning(self, variant: str) -> list[Cell]:
        """Complete runs of a variant on the tuning seeds, with the value that was picked."""
        picked = {cell.value for cell in self.cells if cell.variant == variant and cell.phase in ("confirm", "reserve")}
        mine = (cell for cell in self.cells if cell.variant == variant and cell.phase == "tuning")
        return [cell for cell in mine if cell.status == "complete" and cell.value in picked]


class CheckKind(abc.ABC, Generic[C]):
    """One kind of check."""

    title: ClassVar[str]

    @abc.abstractmethod
    def result(self, check: C, material: Material) -> CheckResult:
        """What was found; `passed` is None where there is nothing to look at yet, or where it only reports."""


_KINDS: dict[type[Settings], CheckKind[Any]] = {}


def _kind(config: type[Settings]) -> Callable[[type[CheckKind[Any]]], type[CheckKind[Any]]]:
    def add(cls: type[CheckKind[Any]]) -> type[CheckKind[Any]]:
        _KINDS[config] = cls()
        return cls

    return add


def run_checks(material: Material) -> list[CheckResult]:
    """Every declared check, in the order of the file."""
    return [_KINDS[type(check)].result(check, material) for check in material.study.checks]


def _nothing_yet(name: str, kind: str) -> CheckResult:
    return CheckResult(name=name, kind=kind, passed=None, pending=True, sentence="no run to look at yet")


def _place(run: MeasuredRun) -> str:
    return f"{run.cell.variant}, seed {run.cell.seed}"


def _series_of(check: SeriesOfVariants, run: MeasuredRun) -> Series:
    return read_series(run.files, check.series, check.where)


@_kind(InvariantCheck)
class InvariantGate(CheckKind[InvariantCheck]):
    """Every value of every run lies within the bounds."""

    def result(self, check: InvariantCheck, material: Material) -> CheckResult:
        name = check.name or f"{check.series} within bounds"
        runs = material.runs(check.variants)
        if not runs:
            return _nothing_yet(name, check.kind)
        low, high = (-math.inf if check.min is None else check.min), (math.inf if check.max is None else check.max)
        worst, details, count = 0.0, [], 0
        seen: list[float] = []
        for run in runs:
            values = _series_of(check, run).values
            seen += values.tolist()
            outside = np.maximum(low - values, values - high)
            count += int((outside > 0).sum())
            if (outside > 0).any():
                worst = float(values[int(np.argmax(outside))])
                details.append(f"{_place(run)}: {int((outside > 0).sum())} of {values.size} values, the furthest {worst:g}")
        bounds = " and ".join(text for text in (_bound("at least", check.min), _bound("at most", check.max)) if text)
        found = f"all {len(seen)} values lie between {min(seen):.4g} and {max(seen):.4g}" if seen else "there is no value"
        sentence = f"{check.series} must be {bounds}: {found if not details else f'{count} of {len(seen)} values are not'}"
        limit = check.max if check.max is not None else check.min
        extreme = (max(seen) if check.max is not None else min(seen)) if seen else None
        return CheckResult(
            name=name,
            kind=check.kind,
            passed=bool(seen) and not details,
            sentence=sentence,
            variants=check.variants,
            value=extreme,
            limit=limit,
            details=tuple(details),
        )


def _bound(words: str, value: float | None) -> str:
    return "" if value is None else f"{words} {value:g}"


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@_kind(ManipulationCheck)
class ManipulationGate(CheckKind[ManipulationCheck]):
    """What was changed on purpose did change, in every run."""

    def result(self, check: ManipulationCheck, material: Material) -> CheckResult:
        name = check.name or f"{check.series} {check.op} {check.value:g}"
        runs = material.runs(check.variants)
        if not runs:
            return _nothing_yet(name, check.kind)
        values, details = [], []
        for run in runs:
            value, holds = _stands(check, _series_of(check, run))
            if value is not None:
                values.append(value)
            if not holds:
                details.append(f"{_place(run)}: {'no value' if value is None else f'{value:g}'}")
        good = len(runs) - len(details)
        sentence = f"{check.series} ({_when(check.at)}) is {check.op} {check.value:g} in {good} of {len(runs)} runs"
        return CheckResult(
            name=name,
            kind=check.kind,
            passed=not details,
            sentence=sentence,
            variants=check.variants,
            value=float(np.median(values)) if values else None,
            limit=check.value,
            details=tuple(details),
        )


def _when(at: int | str) -> str:
    return f"at step {at}" if isinstance(at, int) else {"every": "every value", "any": "any value"}.get(at, str(at))


def _stands(check: ManipulationCheck, series: Series) -> tuple[float | None, bool]:
    """(the value looked at, whether it stands to the threshold as it must)."""
    compare = _OPERATORS[check.op]
    if not series.values.size:
        return None, False
    if isinstance(check.at, int):
        at = np.flatnonzero(series.steps == check.at)
        return (float(series.values[at[0]]), bool(compare(series.values[at[0]], check.value))) if at.size else (None, False)
    if check.at in ("every", "any"):
        holds = compare(series.values, check.value)
        decisive = series.values[~holds] if check.at == "every" else series.values[holds]
        shown = decisive if decisive.size else series.values
        return float(shown[0]), bool(holds.all() if check.at == "every" else holds.any())
    value = {"first": series.values[0], "last": series.values[-1], "mean": series.values.mean()}[check.at]
    return float(value), bool(compare(value, check.value))


@_kind(NoiseFloorCheck)
class NoiseFloorGate(CheckKind[NoiseFloorCheck]):
    """Spread of a measure over runs that differ in nothing but the seed."""

    def result(self, check: NoiseFloorCheck, material: Material) -> CheckResult:
        name = check.name or f"noise of {check.measure}"
        values, phase = noise_values(check, material)
        if len(values) < 2:
            return _nothing_yet(name, check.kind).model_copy(update={"pending": check.max is not None})
        deviation = float(np.std(values, ddof=1))
        upper = sd_upper_limit(deviation, len(values))
        sentence = (
            f"over {len(values)} {phase} seeds of {check.variant}, {check.measure} has the standard deviation {deviation:.3g} "
            f"(upper 80% limit {upper:.3g})"
        )
        passed = None if check.max is None else deviation <= check.max
        return CheckResult(
            name=name,
            kind=check.kind,
            passed=passed,
            sentence=sentence,
            variants=(check.variant,),
            value=deviation,
            limit=check.max,
        )


def noise_values(check: NoiseFloorCheck, material: Material) -> tuple[list[float], str]:
    """The measure over the tuning seeds; over the confirmation seeds, if there are none. And which of the two."""
    tuning = material.tuning(check.variant)
    if tuning:
        runs, phase = [measure_run(material.study, cell, (check.measure,)) for cell in tuning], "tuning"
    else:
        runs, phase = material.runs((check.variant,)), "confirmation"
    return [value for run in runs if math.isfinite(value := _value(run, check.measure))], phase


@_kind(PositiveControlCheck)
class PositiveControlGate(CheckKind[PositiveControlCheck]):
    """A change known to matter shows, in every seed and on average by enough."""

    def result(self, check: PositiveControlCheck, material: Material) -> CheckResult:
        study = material.study
        variant = check.variant or study.baseline
        controls = [cell for cell in material.cells if cell.phase == "control" and cell.control == check.name and cell.ended]
        if not controls:
            return _nothing_yet(check.name, check.kind)
        sign = 1.0 if (study.measures[check.measure].better == "lower") == (check.must == "worse") else -1.0
        gaps, details = [], []
        for cell in controls:
            reference = _reference(material, variant, cell.seed)
            if reference is None:
                details.append(f"seed {cell.seed}: {variant} has no run to compare with")
                continue
            gap = sign * (_number(study, cell, check.measure) - _number(study, reference, check.measure))
            gaps.append(gap)
            if not gap > 0:
                details.append(f"seed {cell.seed}: {check.measure} is not {check.must}, by {gap:.4g}")
        mean = float(np.mean(gaps)) if gaps else None
        shown = None if mean is None or not math.isfinite(mean) else mean
        passed = bool(gaps) and not details and mean is not None and mean >= check.by
        by = (
            "diverged"
            if shown is None and gaps
            else f"{check.measure} is {check.must} by {shown:.4g} on average"
            if gaps
            else "nothing to compare"
        )
        needed = f", at least {check.by:g} is asked for" if check.by else ""
        sentence = f"{check.name}: {by} over {len(gaps)} seeds{needed}"
        return CheckResult(
            name=check.name,
            kind=check.kind,
            passed=passed,
            sentence=sentence,
            variants=(variant,),
            value=shown,
            limit=check.by,
            details=tuple(details),
        )


def _reference(material: Material, variant: str, seed: int) -> Cell | None:
    counting = [cell for cell in material.cells if cell.phase in ("confirm", "reserve") and cell.variant == variant]
    mine = [cell for cell in (*counting, *material.tuning(variant)) if cell.seed == seed and cell.ended]
    return mine[0] if mine else None


def _number(study: StudyConfig, cell: Cell, measure: str) -> float:
    return _value(measure_run(study, cell, (measure,)), measure)


def _value(run: MeasuredRun, measure: str) -> float:
    """The measure of a run; PicoError says why it has none."""
    found = run.reduced[measure]
    if found.value is None:
        raise PicoError(f"{run.cell.run.path}: {measure} has no value: {found.note}", "mend the measure, or the run")
    return found.value


@_kind(HeadroomCheck)
class HeadroomGate(CheckKind[HeadroomCheck]):
    """The best variant stays away from the best value possible."""

    def result(self, check: HeadroomCheck, material: Material) -> CheckResult:
        name = check.name or f"headroom of {check.measure}"
        study = material.study
        variants = [name for name, variant in study.variants.items() if variant.role != "control"]
        runs = material.runs(variants)
        if not runs:
            return _nothing_yet(name, check.kind)
        bound = _bound_of(check, runs[0].files)
        means = {
            variant: float(np.mean([_value(run, check.measure) for run in runs if run.cell.variant == variant]))
            for variant in {run.cell.variant for run in runs}
        }
        lower = study.measures[check.measure].better == "lower"
        best = (min if lower else max)(means, key=lambda variant: means[variant])
        gap = (means[best] - bound) if lower else (bound - means[best])
        sentence = f"the best variant, {best}, is {gap:.4g} away from {bound:.4g}; at least {check.min_gap:g} is asked for"
        return CheckResult(
            name=name,
            kind=check.kind,
            passed=gap >= check.min_gap,
            sentence=sentence,
            variants=(best,),
            value=gap,
            limit=check.min_gap,
        )


def _bound_of(check: HeadroomCheck, files: RunFiles) -> float:
    if check.bound != "entropy_floor":
        return float(check.bound)
    floor = files.run.identity().get("data", {}).get("entropy_floor_nats_per_token")
    if floor is None:
        raise PicoError(
            f"{files.run.path}: the data have no known entropy, so `bound: entropy_floor` says nothing",
            "give a number, or use data made by `pico data synthesize`",
        )
    return float(floor)
