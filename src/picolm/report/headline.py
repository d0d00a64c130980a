"""The few numbers above everything: what a reader wants to know of a run before any chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from picolm.report.health import health
from picolm.report.panels.cost import training_seconds
from picolm.report.panels.loss import validation_losses
from picolm.report.tables import ReportData, RunTables, entropy_floor, section_of
from picolm.report.words import duration, quantity


@dataclass(frozen=True)
class Headline:
    """One number, what it is, and what it should be read against."""

    label: str
    value: str
    detail: str = ""


def headlines(data: ReportData) -> list[Headline]:
    """The headlines of a page: of the run if there is one, else of the set."""
    if data.single is not None:
        return _of_run(data.single)
    variants = {run.variant for run in data.runs}
    of = "1 variant" if len(variants) == 1 else f"{len(variants)} variants"
    return [Headline("runs", str(len(data.runs)), of), *_shared(data)]


def _shared(data: ReportData) -> list[Headline]:
    tokens = data.log["tokens"].max() if len(data.log) else float("nan")
    return [Headline("most tokens", quantity(float(tokens)).strip())] if tokens == tokens else []


def _of_run(run: RunTables) -> list[Headline]:
    found = [_loss(run), _validation(run), *_accuracies(run), _progress(run), _time(run)]
    return [headline for headline in found if headline is not None]


def _against_floor(run: RunTables, value: float) -> str:
    floor = entropy_floor(run)
    return "nats per token" if floor is None else f"{value - floor:+.3f} to the floor of {floor:.3f}"


def _loss(run: RunTables) -> Headline | None:
    if "loss" not in run.log.columns or run.log["loss"].dropna().empty:
        return None
    losses = run.log["loss"].dropna()
    recent = float(losses.tail(max(1, len(losses) // 50)).mean())
    return Headline("training loss", f"{recent:.3f}", _against_floor(run, recent))


def _validation(run: RunTables) -> Headline | None:
    validation = validation_losses(run.scores)
    if validation.empty:
        return None
    value = float(validation["value"].iloc[-1])
    return Headline("validation loss", f"{value:.3f}", _against_floor(run, value))


def _accuracies(run: RunTables) -> list[Headline]:
    scores = run.scores[(run.scores["measure"] == "accuracy") & (run.scores["group"] == "all")].dropna(subset=["value"])
    found = []
    for name, part in list(scores.groupby("evaluation", sort=False))[:2]:
        last = part.sort_values("step", kind="stable").iloc[-1]
        chance = f"chance {last['baseline']:.0%}" if last["baseline"] == last["baseline"] and last["baseline"] is not None else ""
        found.append(Headline(str(name).replace("_", " "), f"{last['value']:.1%}", chance))
    return found


def _progress(run: RunTables) -> Headline | None:
    if run.log["tokens"].dropna().empty:
        return None
    step, planned = int(run.log["step"].max()), run.identity.get("max_steps")
    state = f"{step:,} of {planned:,} updates" if isinstance(planned, int) else f"{step:,} updates"
    return Headline("tokens", quantity(float(run.log["tokens"].max())).strip(), state)


def _time(run: RunTables) -> Headline | None:
    if "step_seconds" not in run.log.columns or run.log["step_seconds"].dropna().empty:
        return None
    return Headline(
        "training time", duration(training_seconds(run)), str(section_of(run.identity, "environment").get("device") or "")
    )


def notices(data: ReportData) -> list[str]:
    """What a reader should know before anything else: what looks wrong, run by run."""
    prefix = "{name}: " if len(data.runs) > 1 else ""
    return [prefix.format(name=run.name) + problem for run in data.runs for problem in health(run)]


def subtitle(data: ReportData) -> str:
    """One line under the title: what model, how large, on which data."""
    run: RunTables | None = data.single
    if run is None:
        return ", ".join(run.name for run in data.runs)
    model, source = section_of(run.identity, "model"), section_of(run.identity, "data")
    parameters: Any = model.get("parameters")
    pieces = [
        str(model.get("type") or "").replace("_", "-"),
        f"{quantity(float(parameters)).strip()} parameters" if isinstance(parameters, int) else "",
        f"trained on {source['name']}" if source.get("name") else "",
        f"variant {run.variant}" if run.variant else "",
        f"seed {run.seed}" if run.seed is not None else "",
    ]
    return " · ".join(piece for piece in pieces if piece)
