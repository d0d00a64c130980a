"""Everything a report draws, read once from the run folders: log, scores, rows, checkpoints, identity. No torch.

Text that comes from outside (names of runs, parts, options, tokens) is made visible and harmless here, before any panel sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas

from picolm.base.errors import PicoError, suggestion
from picolm.records import evaluation, manifest, source, table, trainlog
from picolm.records.rundir import RunDirectory
from picolm.report.visible import clean_frame, cleaned, visible_text
from picolm.report.words import told

if TYPE_CHECKING:
    from picolm.study.judgement import Judgement

GROUPS = ("run", "variant", "seed")
"""What several runs can be grouped by, besides any of their settings."""


TABLES = ("log", "scores", "rows", "checkpoints", "samples")
"""The tables of a run, as they lie beside the page."""


@dataclass(frozen=True)
class RunTables:
    """The tables of one run. Every frame has the columns `run`, `variant`, `seed`, `step` and `tokens`."""

    run: RunDirectory
    name: str
    variant: str
    seed: int | None
    identity: dict[str, Any]
    config: str
    """Text of the resolved configuration; empty if the run has none."""
    log: pandas.DataFrame
    scores: pandas.DataFrame
    rows: pandas.DataFrame
    checkpoints: pandas.DataFrame
    """One row per sealed checkpoint: bytes of each part."""
    samples: pandas.DataFrame
    """Text that the checkpoints generated: `evaluation`, `prompt`, `continuation`."""
    series_problems: tuple[str, ...] = ()
    """What is odd about the series that a captured run stands for."""

    @property
    def captured(self) -> bool:
        """Whether it was made from somebody else's checkpoints: there is no training log then."""
        return isinstance(self.identity.get("capture"), dict)


@dataclass(frozen=True)
class StudyOfRuns:
    """The study that runs were made for."""

    name: str
    judgement: Judgement | None
    """What was found; None if it was not judged."""


@dataclass(frozen=True)
class ReportData:
    """The tables of all runs of a report, stacked; `group` is the column that gives a series its name."""

    runs: tuple[RunTables, ...]
    group_by: str
    log: pandas.DataFrame
    scores: pandas.DataFrame
    rows: pandas.DataFrame
    checkpoints: pandas.DataFrame
    samples: pandas.DataFrame
    study: StudyOfRuns | None = None
    """The study whose runs these are; None if they are not reported as one."""

    @property
    def single(self) -> RunTables | None:
        """The run, if there is only one."""
        return self.runs[0] if len(self.runs) == 1 else None

    @property
    def layers(self) -> list[int]:
        """All layers that any row is about, first to last."""
        return sorted({int(layer) for layer in self.rows["layer"].dropna().unique()}) if "layer" in self.rows.columns else []

    @property
    def layer_count(self) -> int:
        """How many layers need a colour: at least one."""
        return max(self.layers, default=0) + 1

    def facts(self, section: str) -> list[dict[str, Any]]:
        """One section of `run.json` of every run; an absent one is empty."""
        return [section_of(run.identity, section) for run in self.runs]


def section_of(identity: dict[str, Any], section: str) -> dict[str, Any]:
    """A section of `run.json`, empty if it is absent or not a mapping."""
    value = identity.get(section)
    return value if isinstance(value, dict) else {}


def entropy_floor(run: RunTables) -> float | None:
    """The least loss that any model can reach on the data of a run, in nats per token; None if it is not known."""
    floor = section_of(run.identity, "data").get("entropy_floor_nats_per_token")
    return float(floor) if isinstance(floor, int | float) else None


def read_run(run: RunDirectory, *, rows: bool = True) -> RunTables:
    """All tables of one run folder; what it does not have is an empty table. `rows`: whether to read analyses too."""
    identity: dict[str, Any] = cleaned(run.identity())
    name = visible_text(str(identity.get("name") or run.name))
    variant = str(identity.get("variant") or "")
    seed = identity["seed"] if isinstance(identity.get("seed"), int) else None
    config = run.config_file.read_text(encoding="utf-8", errors="replace") if run.config_file.is_file() else ""
    known = {"run": name, "variant": variant, "seed": seed}
    checkpoints = _read_checkpoints(run)
    analyses = [run.analysis(name) for name in run.analysis_names()] if rows else []
    log = trainlog.read_log(run.log_file)
    steps = tokens_by_step(log, checkpoints)
    return RunTables(
        run=run,
        name=name,
        variant=variant,
        seed=seed,
        identity=identity,
        config=visible_text(config),
        log=_labelled(log, known, steps),
        scores=_labelled(evaluation.read_scores(run), known, steps),
        rows=_labelled(table.read_rows(analyses), known, steps),
        checkpoints=_labelled(checkpoints, known, steps),
        samples=_labelled(evaluation.read_samples(run), known, steps),
        series_problems=tuple(visible_text(problem) for problem in source.read_series_problems(run)),
    )


def tokens_by_step(log: pandas.DataFrame, checkpoints: pandas.DataFrame) -> dict[int, int]:
    """Training tokens seen at each step the log or a manifest knows; nothing if neither knows any, as of a captured series."""
    known: dict[int, int] = {}
    for frame in (log, checkpoints):
        if {"step", "tokens"} <= set(frame.columns):
            pairs = frame[["step", "tokens"]].dropna()
            known.update(zip(pairs["step"].astype(int), pairs["tokens"].astype(int), strict=True))
    return {0: 0, **known} if known else known


def _labelled(frame: pandas.DataFrame, known: dict[str, Any], steps: dict[int, int]) -> pandas.DataFrame:
    frame = clean_frame(frame.copy())
    if "step" not in frame.columns:
        frame["step"] = pandas.Series(dtype="float64")
    by_step = frame["step"].map(steps)
    own = pandas.to_numeric(frame["tokens"], errors="coerce") if "tokens" in frame.columns else by_step
    frame["tokens"] = own.astype("Float64").fillna(by_step.astype("Float64")).astype("float64")
    return frame.assign(**known)


def _read_checkpoints(run: RunDirectory) -> pandas.DataFrame:
    rows = []
    for step in run.steps():
        folder = run.checkpoint(step)
        sealed = manifest.read_manifest(folder)
        sizes = {part: sum(record.bytes for record in files.values()) for part, files in sealed.parts.items()}
        removed = [part for part in sealed.parts if manifest.part_removed(folder, sealed, part)]
        kept = {f"{part}_bytes": 0 if part in removed else sizes.get(part, 0) for part in manifest.PARTS}
        rows.append({"step": step, "tokens": sealed.tokens, **kept, "removed": ", ".join(removed)})
    columns = ["step", "tokens", *(f"{part}_bytes" for part in manifest.PARTS), "removed"]
    return pandas.DataFrame(rows, columns=columns)


def read_report_data(
    runs: Sequence[RunDirectory], *, group_by: str | None = None, study: StudyOfRuns | None = None
) -> ReportData:
    """The tables of all runs; series are named by `group_by`, or by what tells the runs apart. `study`: whose runs they are."""
    if not runs:
        raise PicoError("there is no run to report on", "name a run folder, such as runs/demo")
    tables = _named_apart([read_run(run) for run in runs])
    column = choose_group(tables) if group_by is None else group_by
    names = series_names(tables, column)

    def stacked(name: str) -> pandas.DataFrame:
        frames = [getattr(run, name) for run in tables]
        filled = [frame for frame in frames if not frame.empty] or frames[:1]
        frame: pandas.DataFrame = pandas.concat(filled, ignore_index=True) if len(filled) > 1 else filled[0]
        return frame.assign(series=frame["run"].map(names).astype(object))

    return ReportData(tables, column, **{name: stacked(name) for name in TABLES}, study=study)


def _named_apart(runs: Sequence[RunTables]) -> tuple[RunTables, ...]:
    """The runs, each under a name of its own: a second run of the same name is numbered."""
    seen: dict[str, int] = {}
    apart = []
    for run in runs:
        seen[run.name] = count = seen.get(run.name, 0) + 1
        apart.append(run if count == 1 else _renamed(run, f"{run.name} ({count})"))
    return tuple(apart)


def _renamed(run: RunTables, name: str) -> RunTables:
    frames = {field: getattr(run, field).assign(run=name) for field in TABLES}
    return replace(run, name=name, **frames)


def choose_group(runs: Sequence[RunTables]) -> str:
    """`variant` if there is more than one variant or more than one seed of one; else `run`."""
    variants = {run.variant for run in runs}
    several = len(runs) > 1 and "" not in variants and len({(run.variant, run.seed) for run in runs}) == len(runs)
    return "variant" if several else "run"


def series_names(runs: Sequence[RunTables], column: str) -> dict[str, str]:
    """Run -> name of its series: its name, variant or seed, or the value of a setting such as `training.optimization.lr`."""
    if column in GROUPS:
        own: dict[str, Any] = {run.name: getattr(run, "name" if column == "run" else column) for run in runs}
        return {name: "none" if value in ("", None) else str(value) for name, value in own.items()}
    settings = {run.name: flatten_config(run.config) for run in runs}
    known = {key for flat in settings.values() for key in flat}
    if column not in known:
        raise PicoError(
            f"--group-by {column}: neither run, variant or seed nor a setting of these runs",
            suggestion(column, known | {*GROUPS}),
        )
    word = column.rpartition(".")[2]
    return {name: f"{word} {flat[column]}" if column in flat else f"no {word}" for name, flat in settings.items()}


def flatten_config(text: str) -> dict[str, str]:
    """Dotted key -> value of a YAML configuration, both as text."""
    from picolm.base.config import parse_yaml

    flat: dict[str, str] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[visible_text(prefix)] = visible_text(told(value))

    walk(parse_yaml(text, "training_config.yaml") if text else {}, "")
    return flat
