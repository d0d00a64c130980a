"""`evaluation/step_<N>.json`: scores of a model at a step; outside the seal, may be added at any time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from picolm.base.errors import PicoError
from picolm.records import durable
from picolm.records.rundir import RunDirectory

if TYPE_CHECKING:
    import pandas

FORMAT = "picolm.evaluation/1"


@dataclass(frozen=True)
class Score:
    """One number of an evaluation, such as the accuracy on one phenomenon."""

    evaluation: str
    """Name of the evaluation, such as `perplexity` or `blimp`."""
    measure: str
    """What the number is: perplexity, loss_per_token, accuracy, mean_margin, ..."""
    value: float | None
    """None if undefined; `note` then says why."""
    group: str = "all"
    """Domain, paradigm or field the number is about; `all` is the whole."""
    standard_error: float | None = None
    n: int | None = None
    """Tokens, pairs or items the number rests on."""
    baseline: float | None = None
    """What chance gives, where that is known."""
    note: str = ""


def write_scores(run: RunDirectory, step: int, tokens: int | None, scores: Sequence[Score], settings: dict[str, Any]) -> None:
    """Add scores to the evaluation file of a step; evaluations of the same name are replaced, others kept.

    `settings`: evaluation name -> what it was computed with (data hash, window, prefix token, ...).
    """
    path = run.evaluation_file(step)
    content = _read(path) if path.is_file() else {"format": FORMAT, "step": step, "tokens": tokens, "settings": {}, "scores": []}
    replaced = {score.evaluation for score in scores} | set(settings)
    content["settings"] = {name: value for name, value in content["settings"].items() if name not in replaced} | settings
    kept = [score for score in content["scores"] if score["evaluation"] not in replaced]
    content["scores"] = kept + [asdict(score) for score in scores]
    durable.write_json(path, content)


def read_settings(run: RunDirectory, step: int) -> dict[str, Any]:
    """Evaluation name -> what its scores at `step` were computed with; empty if nothing was evaluated."""
    path = run.evaluation_file(step)
    return dict(_read(path)["settings"]) if path.is_file() else {}


def read_scores(run: RunDirectory) -> pandas.DataFrame:
    """All scores of a run: run, step, tokens and the fields of `Score`, ordered by step."""
    import pandas

    rows = []
    for path in run.evaluations.glob("step_*.json"):
        content = _read(path)
        rows += [{"run": run.name, "step": content["step"], "tokens": content["tokens"], **score} for score in content["scores"]]
    columns = ["run", "step", "tokens", *Score.__dataclass_fields__]
    return pandas.DataFrame(rows, columns=columns).sort_values("step", kind="stable", ignore_index=True)


def read_samples(run: RunDirectory) -> pandas.DataFrame:
    """All text a run's checkpoints generated: run, step, tokens, evaluation, prompt, continuation, ordered by step."""
    import pandas

    rows = []
    for path in run.evaluations.glob("step_*.json"):
        content = _read(path)
        at = {"run": run.name, "step": content["step"], "tokens": content["tokens"]}
        for name, settings in content["settings"].items():
            for sample in settings.get("samples", ()):
                rows.append({**at, "evaluation": name, "prompt": sample["prompt"], "continuation": sample["continuation"]})
    columns = ["run", "step", "tokens", "evaluation", "prompt", "continuation"]
    return pandas.DataFrame(rows, columns=columns).sort_values("step", kind="stable", ignore_index=True)


def _read(path: Any) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PicoError(f"{path} is damaged: {error}", "delete it and evaluate again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PicoError(f"{path} is not of the format {FORMAT}", "delete it and evaluate again")
    return content
