"""How a run is doing, in plain sentences and a few numbers: what `pico show` and `pico runs` print."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas

from picolm.report.panels.loss import validation_losses
from picolm.report.tables import RunTables, entropy_floor, section_of
from picolm.report.words import duration, quantity

MANY_UNDEFINED = 0.2
"""Share of analysis values that may be undefined without being a problem: the last step, for one, has no update."""

RECENT_ROWS = 50
"""Logged updates that count as recent."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    max_steps: int | None
    tokens: float | None
    checkpoints: int
    last_checkpoint: int | None
    seconds_left: float | None
    """Estimated from the recent speed; None if finished or not known."""

    @property
    def finished(self) -> bool:
        """Whether all planned updates are made."""
        return self.max_steps is not None and self.step >= self.max_steps


def progress_of_run(run: RunTables) -> Progress:
    """Steps, tokens and checkpoints of a run so far."""
    logged = int(run.log["step"].max()) if len(run.log) else 0
    steps = [int(step) for step in run.checkpoints["step"]]
    step = max([logged, *steps])
    planned = run.identity.get("max_steps")
    max_steps = planned if isinstance(planned, int) else None
    tokens = [float(frame["tokens"].max()) for frame in (run.log, run.checkpoints) if frame["tokens"].notna().any()]
    return Progress(
        step=step,
        max_steps=max_steps,
        tokens=max(tokens, default=None),
        checkpoints=len(steps),
        last_checkpoint=max(steps, default=None),
        seconds_left=_seconds_left(run, step, max_steps),
    )


def _seconds_left(run: RunTables, step: int, max_steps: int | None) -> float | None:
    if max_steps is None or step >= max_steps or "step_seconds" not in run.log.columns:
        return None
    recent = run.log["step_seconds"].dropna().tail(RECENT_ROWS)
    return float(recent.median() * (max_steps - step)) if len(recent) else None


def health(run: RunTables) -> list[str]:
    """Sentences about what looks wrong; empty if nothing does."""
    log = [] if run.captured else _log_problems(run)
    return [*run.series_problems, *log, *_checkpoint_problems(run), *_analysis_problems(run)]


def _log_problems(run: RunTables) -> list[str]:
    if "loss" not in run.log.columns or run.log.empty:
        return ["the training log has no losses yet"]
    losses = pandas.to_numeric(run.log["loss"], errors="coerce")
    problems = _without_update(run.log, losses)
    losses = losses.dropna()  # an update that learns from something else has none
    recent = losses.tail(RECENT_ROWS)
    if len(losses) >= 2 * RECENT_ROWS and recent.mean() > losses.min() + max(0.5, 0.2 * abs(losses.min())):
        problems.append(f"the recent loss ({recent.mean():.3f}) is well above its best ({losses.min():.3f})")
    if "clip_factor" in run.log.columns:
        clipped = float((run.log["clip_factor"].tail(RECENT_ROWS) < 1).mean())
        if clipped > 0.9 and len(run.log) >= 2 * RECENT_ROWS:
            problems.append(f"the gradient was clipped in {clipped:.0%} of the last {RECENT_ROWS} logged updates")
    return problems


def _without_update(log: pandas.DataFrame, losses: pandas.Series) -> list[str]:
    """Whether loss or gradient was ever not finite: our log counts such updates, others only show them."""
    if "skipped_updates" in log.columns:
        skipped = log.loc[log["skipped_updates"] > 0, ["step", "skipped_updates"]]
        total, what = (int(skipped["skipped_updates"].max()) if len(skipped) else 0), "skipped: loss or gradient was not finite"
    else:
        skipped = log.loc[~losses.map(math.isfinite), ["step"]]
        total, what = len(skipped), "logged without a finite loss"
    if not total:
        return []
    updates = "1 update was" if total == 1 else f"{total} updates were"
    return [f"{updates} {what}, first at or before step {int(skipped['step'].iloc[0])}"]


def _checkpoint_problems(run: RunTables) -> list[str]:
    return [] if len(run.checkpoints) else ["there is no sealed checkpoint yet"]


def _analysis_problems(run: RunTables) -> list[str]:
    missing = run.rows["value"].isna() if len(run.rows) else pandas.Series(dtype=bool)
    many = len(missing) > 0 and float(missing.mean()) > MANY_UNDEFINED
    return [f"{int(missing.sum()):,} of {len(run.rows):,} analysis values are undefined"] if many else []


def latest(run: RunTables) -> list[tuple[str, str]]:
    """The latest losses and scores, as name and value."""
    found = []
    if "loss" in run.log.columns and run.log["loss"].notna().any():
        last = run.log.dropna(subset=["loss"]).iloc[-1]
        found.append(("training loss", f"{last['loss']:.4f} at step {int(last['step']):,}"))
    validation = validation_losses(run.scores)
    if len(validation):
        last = validation.iloc[-1]
        found.append(("validation loss", f"{last['value']:.4f} at step {int(last['step']):,}"))
    floor = entropy_floor(run)
    if floor is not None:
        found.append(("entropy floor", f"{floor:.4f}"))
    return found + _latest_scores(run)


def _latest_scores(run: RunTables) -> list[tuple[str, str]]:
    whole = run.scores[(run.scores["group"] == "all") & (run.scores["measure"] != "loss_per_token")].dropna(subset=["value"])
    ends = whole.sort_values("step", kind="stable").groupby(["evaluation", "measure"], sort=False).last().reset_index()
    rows = ends.to_dict("records")
    return [(f"{row['evaluation']} {row['measure']}", f"{row['value']:.4g} at step {int(row['step']):,}") for row in rows]


def summary(run: RunTables) -> dict[str, Any]:
    """Everything `pico show` prints, as JSON."""
    progress = progress_of_run(run)
    return {
        "name": run.name,
        "path": str(run.run.path),
        "variant": run.variant,
        "seed": run.seed,
        "model": section_of(run.identity, "model"),
        "data": section_of(run.identity, "data"),
        "step": progress.step,
        "max_steps": progress.max_steps,
        "tokens": progress.tokens,
        "checkpoints": progress.checkpoints,
        "last_checkpoint": progress.last_checkpoint,
        "finished": progress.finished,
        "latest": dict(latest(run)),
        "analyses": run.run.analysis_names(),
        "problems": health(run),
    }


def progress_sentence(progress: Progress) -> str:
    """`600 of 600 updates, finished, 2.46 M tokens, 10 checkpoints (last: step 600)`."""
    planned = f" of {progress.max_steps:,}" if progress.max_steps is not None else ""
    pieces = [f"{progress.step:,}{planned} updates"]
    if progress.finished:
        pieces.append("finished")
    if progress.seconds_left is not None:
        pieces.append(f"about {duration(progress.seconds_left)} of training left")
    if progress.tokens is not None:
        pieces.append(f"{quantity(progress.tokens).strip()} tokens")
    last = f" (last: step {progress.last_checkpoint:,})" if progress.last_checkpoint is not None else ""
    return ", ".join([*pieces, f"{progress.checkpoints} checkpoints{last}"])


def sheet(run: RunTables) -> list[str]:
    """The lines of `pico show`."""
    model, data = section_of(run.identity, "model"), section_of(run.identity, "data")
    parameters = model.get("parameters")
    size = f", {quantity(float(parameters)).strip()} parameters" if isinstance(parameters, int) else ""
    named = [
        ("run", run.name),
        ("variant", f"{run.variant or 'none'}, seed {run.seed if run.seed is not None else 'not known'}"),
        ("model", f"{model.get('type', 'not known')}{size}"),
        ("data", str(data.get("name", "not known"))),
        ("progress", progress_sentence(progress_of_run(run))),
        *latest(run),
        ("analyses", ", ".join(run.run.analysis_names()) or "none"),
    ]
    problems = health(run)
    width = max(len(name) for name, _ in named)
    told = [("health" if index == 0 else "", problem) for index, problem in enumerate(problems or ["nothing looks wrong"])]
    return [f"{name:<{width}}  {value}" for name, value in [*named, *told]]
