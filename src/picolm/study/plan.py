"""`pico study plan`: what a study costs, what it can find, and whether it should be made at all. Nothing is run that counts.

A confirmatory study is refused if no outcome could support it (the smallest p that its seeds can give is above its threshold, or
what is expected does not exceed what is asked for) and if no outcome could speak against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from picolm.records.studydir import StudyDirectory
from picolm.study.config import StudyConfig
from picolm.study.lock import LockedCell, StudyLock
from picolm.study.matrix import Cell, tuning_cells
from picolm.study.reach import PredictionReach, Refusal, reach_of, refusals_of
from picolm.study.receipt import read_receipt

START_SECONDS = 5.0
"""What starting a process costs; short runs share one."""
SHARED_START_SECONDS = 60.0


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of the matrix costs."""

    runs: int
    done: int
    """Runs that have ended already."""
    steps: int
    tokens: int
    disk_bytes: int
    core_hours: float | None
    """Of all its runs, also those that are done. None: the speed is not known."""


@dataclass(frozen=True)
class StudyPlan:
    """The cost of a study and what it can find."""

    study: str
    mode: str
    mode_reason: str
    threads: int
    at_once: int
    phases: dict[str, PhaseCost]
    """tuning, control, confirm, reserve; reserve runs are made only if the second look is needed."""
    seconds_per_run: dict[str, float]
    """Variant -> seconds, and where they come from in `speed`."""
    speed: str
    predictions: tuple[PredictionReach, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()
    error_of_looks: float | None = None
    """Share of studies without any effect that a prediction would cross a threshold in."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variant -> role, parameters, tokens of a run."""

    @property
    def core_hours(self) -> float | None:
        """All runs that are surely made; None if the speed is not known."""
        known = [phase.core_hours for name, phase in self.phases.items() if name != "reserve"]
        return None if any(hours is None for hours in known) else sum(hours for hours in known if hours is not None)

    @property
    def hours_left(self) -> float | None:
        """Wall-clock hours for the runs that are surely made and are not done yet."""
        if self.core_hours is None:
            return None
        left = [
            (phase.core_hours or 0.0) * (phase.runs - phase.done) / phase.runs
            for name, phase in self.phases.items()
            if name != "reserve" and phase.runs
        ]
        return sum(left) / (self.threads * self.at_once)


@dataclass(frozen=True)
class CostOfRun:
    """What one run of a variant costs."""

    steps: int
    tokens: int
    disk_bytes: int
    parameters: int
    memory_bytes: int


def plan_study(
    directory: StudyDirectory,
    lock: StudyLock,
    *,
    at_once: int,
    tokens_per_second: float | None = None,
    measure: Callable[[str], float] | None = None,
) -> StudyPlan:
    """The plan of a study as `lock` resolves it (a lock or a draft of one). `measure`: variant -> seconds of a run."""
    study = lock.config
    costs = {name: cost_of_variant(lock, name) for name in study.variants}
    seconds, speed = _seconds(directory, lock, costs, tokens_per_second, measure)
    phases = _phases(directory, study, lock, costs, seconds)
    reach = tuple(reach_of(study, name, tuning_cells(directory, lock)) for name in study.predictions)
    plan = StudyPlan(
        study=study.id,
        mode=lock.mode,
        mode_reason=lock.mode_reason,
        threads=study.execution.threads,
        at_once=at_once,
        phases=phases,
        seconds_per_run=seconds,
        speed=speed,
        predictions=reach,
        refusals=(),
        notes=tuple(_notes(study, lock)),
        error_of_looks=_error(study),
        variants={
            name: {"role": study.variants[name].role, "parameters": cost.parameters, "tokens": cost.tokens}
            for name, cost in costs.items()
        },
    )
    refusals = refusals_of(study, lock, reach, tuning_cells(directory, lock), plan.error_of_looks, plan.core_hours)
    return StudyPlan(**{**vars(plan), "refusals": tuple(refusals)})


def cost_of_variant(lock: StudyLock, variant: str) -> CostOfRun:
    """Steps, tokens, bytes and memory of a run, from its configuration alone."""
    from picolm.train.plan import plan_run

    planned = plan_run(configuration_of(lock, first_cell(lock, variant)))
    return CostOfRun(
        steps=planned.tokens // planned.tokens_per_step,
        tokens=planned.tokens,
        disk_bytes=planned.disk_bytes,
        parameters=sum(planned.parameters.values()),
        memory_bytes=sum(planned.memory.values()),
    )


def first_cell(lock: StudyLock, variant: str) -> LockedCell:
    """The first place of a variant that is no control."""
    return next(cell for cell in lock.cells if cell.variant == variant and not cell.control)


def configuration_of(lock: StudyLock, cell: LockedCell) -> Any:
    """The resolved configuration of a place."""
    from picolm.study.resolve import parse

    return parse(lock.base, cell.overrides, f"{lock.study}: {cell.run}")


def _seconds(
    directory: StudyDirectory,
    lock: StudyLock,
    costs: dict[str, CostOfRun],
    tokens_per_second: float | None,
    measure: Callable[[str], float] | None,
) -> tuple[dict[str, float], str]:
    """(variant -> seconds of a run, where that is known from)."""
    if tokens_per_second is not None:
        return {name: cost.tokens / tokens_per_second for name, cost in costs.items()}, f"at {tokens_per_second:,.0f} tokens/s"
    ended = {name: _ended_seconds(directory, lock, name) for name in costs}
    if all(ended.values()):
        return {name: sorted(times)[len(times) // 2] for name, times in ended.items()}, "as the runs that ended took"
    if measure is None:
        return {}, "not known"
    return {name: measure(name) for name in costs}, "measured here on the first steps of a run"


def _ended_seconds(directory: StudyDirectory, lock: StudyLock, variant: str) -> list[float]:
    names = {cell.run for cell in lock.cells if cell.variant == variant and not cell.control}
    receipts = [receipt for name in names if (receipt := read_receipt(directory, name)) is not None]
    return [receipt["seconds"] for receipt in receipts if receipt["status"] == "complete"]


def _phases(
    directory: StudyDirectory, study: StudyConfig, lock: StudyLock, costs: dict[str, CostOfRun], seconds: dict[str, float]
) -> dict[str, PhaseCost]:
    counted: set[str] = set()
    phases = {}
    for phase in ("tuning", "control", "confirm", "reserve"):
        chosen = _one_value_each(study, [cell for cell in lock.cells if cell.phase == phase])
        runs = {cell.run: cell for cell in chosen if cell.run not in counted}
        counted |= set(runs)
        if not runs:
            continue
        receipts = [read_receipt(directory, name) for name in runs]
        variants = [cell.variant for cell in runs.values()]
        phases[phase] = PhaseCost(
            runs=len(runs),
            done=sum(receipt is not None and receipt["status"] in ("complete", "diverged") for receipt in receipts),
            steps=sum(costs[name].steps for name in variants),
            tokens=sum(costs[name].tokens for name in variants),
            disk_bytes=sum(costs[name].disk_bytes for name in variants),
            core_hours=_core_hours([seconds[name] for name in variants], study.execution.threads) if seconds else None,
        )
    return phases


def _one_value_each(study: StudyConfig, places: Sequence[LockedCell]) -> list[LockedCell]:
    """Of the places after tuning those with one value per variant: only the picked one is run."""
    if study.tuning is None or not places or places[0].phase == "tuning":
        return list(places)
    first: dict[tuple[str, int, str], LockedCell] = {}
    for cell in places:
        first.setdefault((cell.variant, cell.seed, cell.control), cell)
    return list(first.values())


def _core_hours(seconds: Sequence[float], threads: int) -> float:
    """Core-hours of runs of such lengths, each with its share of a process's start."""
    starts = [START_SECONDS * min(1.0, max(one, 1.0) / SHARED_START_SECONDS) for one in seconds]
    return (sum(seconds) + sum(starts)) * threads / 3600


def _error(study: StudyConfig) -> float | None:
    if study.mode == "exploratory":
        return None
    from picolm.study.statistics.looks import error_of_looks

    return error_of_looks(study.looks, study.spend)


def _notes(study: StudyConfig, lock: StudyLock) -> list[str]:
    found = []
    for name, variant in lock.variants.items():
        if not variant.config.get("data.dataloader.shuffle", True) and "data" in study.seeds.share:
            found.append(f"variant {name}: data.dataloader.shuffle is false, so all seeds see the data in the same order")
    if lock.mode_reason:
        found.append(f"exploratory, although the file says confirmatory: {lock.mode_reason}")
    if study.tuning is None and not study.seeds.tuning:
        found.append("without seeds.tuning nothing is known about the noise before the runs that count")
    return found


def memory_of_job(lock: StudyLock) -> int:
    """Bytes that a process of this study takes at most: the interpreter with its libraries, and the largest run."""
    largest = max(cost_of_variant(lock, name).memory_bytes for name in lock.variants)
    return 700 * 1024**2 + largest


def measured(cells: Sequence[Cell]) -> list[Cell]:
    """The places whose run is complete."""
    return [cell for cell in cells if cell.status == "complete"]
