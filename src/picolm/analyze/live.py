"""An analysis on snapshots in memory, step by step: inside a training, where tensors are gone a moment later."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from picolm.analyze.config import AnalysisConfig
from picolm.analyze.measure import measure_tasks, tasks_of_step
from picolm.analyze.partners import Partners
from picolm.analyze.plan import Partner, Plan, plan_analysis
from picolm.analyze.source import Step, open_source
from picolm.base.errors import PicoError
from picolm.records.snapshot import Snapshot
from picolm.records.table import Row

ALLOWED = "set compare_with: first, previous, beside, or {step: n}"


class LiveAnalysis:
    """Gives the rows of an analysis for one snapshot after another, on the calling thread alone.

    `steps` of the settings are not looked at: whoever calls decides when. Of earlier snapshots only those are kept that
    later ones are compared with, so a snapshot handed over must not change if a metric compares with it.
    """

    def __init__(self, config: AnalysisConfig, *, run: str, variant: str = "", seed: int | None = None) -> None:
        self._config, self._run, self._variant, self._seed = config, run, variant, seed
        self._plan: Plan | None = None
        self._kept = _KeptSteps(run)
        if "all" in (config.compare_with, *(spec.target for spec in config.metrics)):
            raise PicoError("compare_with: all needs the whole run", ALLOWED)
        for measurement in plan_analysis(config, [0]).measurements:
            if measurement.partner is not None and measurement.partner.moves:
                name = measurement.metric.name
                raise PicoError(f"{name} compares with the last step, which does not exist yet inside a training", ALLOWED)

    def reads(self) -> set[tuple[str, str]]:
        """(split, stored data type) of everything the metrics are computed from; weights belong to no split."""
        return {
            ("" if data_type == "weights" else measurement.view.split, data_type)
            for measurement in plan_analysis(self._config, [0]).measurements
            for data_type in measurement.view.component.reads
        }

    def measure(self, step: int, tokens: int | None, snapshots: Mapping[str, Snapshot]) -> list[Row]:
        """The rows of one step from its snapshots by split."""
        if self._plan is None:
            self._plan = plan_analysis(self._config, [step])
        now = Step(
            run=self._run,
            step=step,
            snapshot=lambda split: snapshots[split or next(iter(snapshots))],
            hashes=lambda split, data_types: [f"in memory at step {step}"],
            verify=lambda data_types: None,
            variant=self._variant,
            seed=self._seed,
            tokens=tokens,
        )
        self._kept.add(now)
        partners = Partners(self._kept, self._kept.steps(), cache(lambda path: open_source(Path(path))))
        rows = [row for found in measure_tasks(tasks_of_step(self._plan, now, partners), now, partners) for row in found]
        self._kept.forget_all_but([each.partner for each in self._plan.measurements if each.partner is not None], step)
        return rows


class _KeptSteps:
    """The steps that later ones are compared with, as a run that can be looked up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: dict[int, Step] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def last_step(self) -> int | None:
        return None

    def add(self, step: Step) -> None:
        self._steps[step.step] = step

    def steps(self) -> list[int]:
        return sorted(self._steps)

    def open_step(self, number: int) -> Step:
        return self._steps[number]

    def analysis(self, name: str) -> Path:
        raise PicoError(f"the rows of {name} are not kept here")

    def forget_all_but(self, partners: list[Partner], latest: int) -> None:
        fixed = {partner.step for partner in partners if partner.run is None}
        previous = {latest} if any(partner.kind == "previous" for partner in partners) else set()
        self._steps = {number: step for number, step in self._steps.items() if number in fixed | previous}
