"""A named series of one run, read from its log, scores or analysis rows: (step, tokens, value), in order of steps.

The grammar is the one of `MeasureConfig.series`; the next stop is `reductions`, which makes one number of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from picolm.base.errors import PicoError, suggestion
from picolm.records import evaluation, manifest, table, trainlog
from picolm.records.rundir import RunDirectory

if TYPE_CHECKING:
    import pandas

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """Values of one series of one run, ascending in step; what is undefined is left out and counted."""

    steps: Floats
    tokens: Floats
    values: Floats
    undefined: int = 0
    """Values that the run has no number for, such as a loss that was not finite."""

    def from_step(self, step: int | None) -> Series:
        """What was measured at `step` or later."""
        if step is None:
            return self
        kept = self.steps >= step
        return Series(self.steps[kept], self.tokens[kept], self.values[kept], self.undefined)


class RunFiles:
    """What one run has written, each file read at most once."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._frames: dict[str, pandas.DataFrame] = {}

    def log(self) -> pandas.DataFrame:
        return self._read("log", lambda: trainlog.read_log(self.run.log_file))

    def scores(self) -> pandas.DataFrame:
        return self._read("scores", lambda: evaluation.read_scores(self.run))

    def rows(self, analysis: str) -> pandas.DataFrame:
        return self._read(f"analysis.{analysis}", lambda: table.read_rows(self.run.analysis(analysis)))

    def _read(self, name: str, reader: Any) -> pandas.DataFrame:
        if name not in self._frames:
            self._frames[name] = reader()
        return self._frames[name]


def read_series(files: RunFiles, series: str, where: Mapping[str, Any]) -> Series:
    """The series of a run; PicoError that names what the run does have if there is none."""
    sort, _, rest = series.partition(".")
    if sort == "run":
        return _of_run(files, rest)
    if sort == "train":
        return _of_log(files, rest)
    if sort == "evaluation":
        return _of_scores(files, rest, where)
    return _of_analysis(files, rest, where)


def _of_log(files: RunFiles, column: str) -> Series:
    log = files.log()
    if column not in log.columns:
        known = [name for name in log.columns if name not in ("step", "tokens")]
        raise _missing(files, f"train.{column}", f"column `{column}` in its log", column, known)
    return _series(log, column)


def _of_scores(files: RunFiles, name: str, where: Mapping[str, Any]) -> Series:
    label, _, score = name.partition(".")
    scores = files.scores()
    mine = scores[(scores["evaluation"] == label) & (scores["measure"] == score)]
    if mine.empty:
        known = sorted({f"{row.evaluation}.{row.measure}" for row in scores.itertuples()})
        raise _missing(files, f"evaluation.{name}", f"score {name}", name, known)
    chosen = _chosen(mine, {"group": "all", **where})
    if chosen.empty:
        known = sorted({str(group) for group in mine["group"]})
        raise _missing(files, f"evaluation.{name}", f"group {where.get('group', 'all')}", str(where.get("group", "all")), known)
    return _series(chosen, "value")


def _of_analysis(files: RunFiles, name: str, where: Mapping[str, Any]) -> Series:
    if name not in files.run.analysis_names():
        raise _missing(files, f"analysis.{name}", f"analysis `{name}`", name, files.run.analysis_names())
    rows = files.rows(name)
    for column in where:
        remaining = _chosen(rows, {column: where[column]})
        if remaining.empty:
            known = sorted({str(value) for value in rows[column].dropna()})
            raise _missing(files, f"analysis.{name}", f"row with {column} = {where[column]}", str(where[column]), known)
        rows = remaining
    return _series(rows, "value")


def _chosen(rows: pandas.DataFrame, where: Mapping[str, Any]) -> pandas.DataFrame:
    for column, wanted in where.items():
        allowed = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        known = rows[column].isin([value for value in allowed if value is not None])
        rows = rows[known | rows[column].isna()] if None in allowed else rows[known]
    return rows


def _series(rows: pandas.DataFrame, column: str) -> Series:
    """Mean over the rows of each step; rows without a number are left out and counted."""
    numbers = rows[["step", "tokens", column]].rename(columns={column: "value"}).astype("float64")
    defined = numbers[np.isfinite(numbers["value"])]
    means = defined.groupby("step", as_index=False).mean().sort_values("step")
    columns = [means[name].to_numpy(dtype=np.float64) for name in ("step", "tokens", "value")]
    return Series(columns[0], columns[1], columns[2], len(numbers) - len(defined))


def _of_run(files: RunFiles, fact: str) -> Series:
    value = run_fact(files, fact)
    if value is None:
        raise PicoError(f"{files.run.path}: run.{fact} is not known", "the run has not written its log or its run.json yet")
    log = files.log()
    last = log.iloc[-1] if len(log) else {"step": 0, "tokens": 0}
    return Series(np.array([float(last["step"])]), np.array([float(last["tokens"])]), np.array([value]))


CHECKPOINT_PARTS = {"model_state_bytes": ("weights", "training_state"), "learning_dynamics_bytes": ("learning_dynamics",)}
"""Fact -> parts of the last checkpoint that it counts, as the paper's Table 4 does."""


def run_fact(files: RunFiles, fact: str) -> float | None:
    """One of `RUN_FACTS`, of a whole run; None if it is not known."""
    log, parameters = files.log(), files.run.identity().get("model", {}).get("parameters")
    if fact == "parameters":
        return None if parameters is None else float(parameters)
    if fact == "checkpoint_bytes":
        return float(sum(manifest.read_manifest(files.run.checkpoint(step)).bytes for step in files.run.steps()))
    if fact in CHECKPOINT_PARTS:
        return _bytes_of_parts(files, CHECKPOINT_PARTS[fact])
    if log.empty:
        return None
    if fact == "checkpoint_seconds":
        return _checkpoint_seconds(files, log)
    tokens = float(log["tokens"].iloc[-1])
    if fact == "flops":
        return _flops(log, parameters, tokens)
    made = np.diff(log["step"].to_numpy(dtype=np.float64), prepend=0.0)
    seconds = float((made * log["step_seconds"].to_numpy(dtype=np.float64)).sum())
    return {"tokens": tokens, "steps": float(log["step"].iloc[-1]), "seconds": seconds, "tokens_per_second": tokens / seconds}[
        fact
    ]


def _bytes_of_parts(files: RunFiles, parts: Sequence[str]) -> float | None:
    steps = files.run.steps()
    if not steps:
        return None
    sealed = manifest.read_manifest(files.run.checkpoint(steps[-1])).parts
    return float(sum(record.bytes for part in parts for record in sealed.get(part, {}).values()))


def _checkpoint_seconds(files: RunFiles, log: pandas.DataFrame) -> float | None:
    """Pauses of the training that were no evaluation, per checkpoint; the one after the last update is not in the log."""
    steps = [step for step in files.run.steps() if step < int(log["step"].iloc[-1])]
    settings = [evaluation.read_settings(files.run, step) for step in files.run.evaluated_steps()[:-1]]
    evaluating = sum(float(one.get("seconds", 0.0)) for step in settings for one in step.values())
    paused = float(log["paused_seconds"].fillna(0.0).sum())
    return max(0.0, paused - evaluating) / len(steps) if steps else None


def _flops(log: pandas.DataFrame, parameters: int | None, tokens: float) -> float | None:
    """What the run counted itself (column `flops`, a running total), else 6 per parameter and token."""
    if "flops" in log.columns:
        return float(log["flops"].iloc[-1])
    return None if parameters is None else 6.0 * parameters * tokens


def _missing(files: RunFiles, series: str, what: str, wanted: str, known: list[str]) -> PicoError:
    listed = ", ".join(known[:30]) or "nothing"
    hint = suggestion(wanted, known) if known else "nothing of this sort was measured in the run"
    return PicoError(f"{files.run.path}: {series}: there is no {what}; there is {listed}", hint)
