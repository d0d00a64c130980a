"""What `pico study` shows: a plan as text, the progress of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from picolm.cli.console import say, stderr

if TYPE_CHECKING:
    from picolm.study.judgement import Judgement
    from picolm.study.plan import PhaseCost, StudyPlan
    from picolm.study.reach import PredictionReach
    from picolm.study.runner import RunOutcome

PHASES = {"tuning": "tuning", "control": "controls", "confirm": "confirmation", "reserve": "reserve, if needed"}


def plan_lines(plan: StudyPlan) -> list[str]:
    """The plan as text."""
    lines = [f"study {plan.study}, {plan.mode}" + (f" ({plan.mode_reason})" if plan.mode_reason else "")]
    lines += [_phase_line(PHASES[name], phase) for name, phase in plan.phases.items()]
    for name, variant in plan.variants.items():
        seconds = plan.seconds_per_run.get(name)
        time = "" if seconds is None else f", {seconds:.1f} s a run"
        lines.append(
            f"variant {name:<18} {variant['role']}, {variant['parameters']:,} parameters, {variant['tokens']:,} tokens{time}"
        )
    if plan.core_hours is not None and plan.hours_left is not None:
        lines.append(
            f"time: {plan.core_hours * 60:.1f} core-minutes, {plan.speed}; still to do: {plan.hours_left * 60:.1f} minutes with "
            f"{plan.at_once} run(s) at once, {plan.threads} thread(s) each"
        )
    for prediction in plan.predictions:
        lines += _reach_lines(prediction, tested=plan.mode == "confirmatory")
    if plan.error_of_looks is not None:
        lines.append(f"a study without any effect would be claimed in {plan.error_of_looks:.1%} of cases")
    return lines


def _phase_line(name: str, phase: PhaseCost) -> str:
    from picolm.train.plan import in_bytes

    done = f" ({phase.done} done)" if phase.done else ""
    hours = "" if phase.core_hours is None else f", {phase.core_hours * 60:.1f} core-minutes"
    return (
        f"{name + ':':<20} {phase.runs} runs{done}, {phase.tokens:,} tokens, {in_bytes(phase.disk_bytes)} of checkpoints{hours}"
    )


def _reach_lines(prediction: PredictionReach, *, tested: bool) -> list[str]:
    lines = [f"{prediction.name}: {prediction.sentence}"]
    if not prediction.in_family or not tested:
        return [f"{lines[0]} (described, not tested)"]
    for look in prediction.looks:
        floor = "exact" if look.floor is None else f"p at least {look.floor:.4g}, to be at most {look.threshold:.4g}"
        found = "" if look.minimum_detectable is None else f"; found with 80% power: {look.minimum_detectable:.4g}"
        power = "" if look.power is None else f"; power for what is expected: {look.power:.0%}"
        lines.append(f"  {look.seeds} seeds: {floor}{found}{power}")
    if prediction.noise is None:
        lines.append("  noise not known: no complete pairs of tuning runs")
    else:
        lines.append(f"  noise of paired tuning runs: {prediction.noise:.4g}, planned with {prediction.noise_upper:.4g}")
    return lines


def failing_lines(outcome: RunOutcome) -> list[str]:
    """One line per run that failed."""
    return [f"failed: {failure}" for failure in outcome.failed]


class StudyProgress:
    """A bar over the training steps of a stage on a terminal; a line per run that ended elsewhere. A `StudyObserver`."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[facts]}"),
            TimeRemainingColumn(compact=True),
            console=stderr,
            disable=not stderr.is_terminal,
        )
        self._task: TaskID | None = None
        self._runs = 0

    def __enter__(self) -> StudyProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, runs: int, steps: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"{runs} runs", total=max(steps, 1), facts="")
        if runs and not stderr.is_terminal:
            say(f"{runs} runs to make, {steps:,} steps")

    def advance(self, steps: int, running: Sequence[str]) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=steps, facts=", ".join(running[:3]))

    def ended(self, run: str, status: str, reason: str, done: int, runs: int) -> None:
        sentence = f"{done}/{runs} {run}: {status}" + (f" ({reason})" if reason else "")
        if stderr.is_terminal and status == "complete":
            return
        self.say(sentence)

    def say(self, sentence: str) -> None:
        if stderr.is_terminal:
            from rich.markup import escape

            self._bar.console.print(escape(sentence))
        else:
            say(sentence)


def judgement_lines(judgement: Judgement) -> list[str]:
    """The conclusion, then one line per check that did not pass and per prediction."""
    lines = [judgement.conclusion, ""]
    lines += [f"check failed: {check.name}: {check.sentence}" for check in judgement.checks if check.passed is False]
    lines += [f"  {detail}" for check in judgement.checks if check.passed is False for detail in check.details]
    for found in judgement.predictions:
        label = f"{found.verdict}" + (f" ({found.sub_label})" if found.sub_label else "")
        lines.append(f"{found.name}: {label if found.in_family else 'described'}: {found.sentence}")
        lines.append(f"  {found.reason}")
    lines += [f"deviation: {sentence}" for sentence in judgement.deviations]
    return lines
