"""Where values go besides the table: JSON files in the original's layout, and Weights & Biases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from picolm.analyze.config import AnalysisConfig, WandbConfig
from picolm.base.errors import PicoError
from picolm.base.wandb_login import wandb_is_online
from picolm.records import durable
from picolm.records.names import join_name

if TYPE_CHECKING:
    import pandas


class Form(NamedTuple):
    """What tells apart two files of one step."""

    metric: str
    options: str
    split: str
    partner: str


def plain_records(rows: pandas.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries of plain Python values, exact, with None for what is missing."""
    records: list[dict[Any, Any]] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return [
        {str(name): value.item() if hasattr(value, "item") else value for name, value in record.items()} for record in records
    ]


def write_json_layout(rows: pandas.DataFrame, folder: Path) -> list[Path]:
    """One JSON file per step and metric below `folder/<run>/step_<N>/`: `layers.0.swiglu.w_2.weights` -> value or null.

    A metric that occurs in one form keeps its bare name, as the original writes it; of several forms each carries what
    tells it apart, so that none overwrites another. The paths of the files.
    """
    forms: dict[str, list[Form]] = {}
    files: dict[tuple[str, int, Form], dict[str, float | None]] = {}
    for row in plain_records(rows):
        form = Form(row["metric"], row["options"], row["split"], row["partner"])
        if form not in forms.setdefault(form.metric, []):
            forms[form.metric].append(form)
        files.setdefault((row["run"], row["step"], form), {})[_key(row)] = row["value"]
    paths = []
    for (run, step, form), values in files.items():
        path = folder / run / f"step_{step}" / f"{_file_stem(form, forms[form.metric])}.json"
        durable.write_json(path, values)
        paths.append(path)
    return paths


def _key(row: dict[str, Any]) -> str:
    """`layers.0.swiglu.w_2.weights` or `layers.0.ov_circuit.activations.heads.3`: the original's name of a value."""
    name = f"{join_name(row['layer'], row['part'])}.{row['data_type']}"
    return name if row["head"] is None else f"{name}.heads.{row['head']}"


def _file_stem(form: Form, all_forms: list[Form]) -> str:
    words = [form.metric]
    if len({each.options for each in all_forms}) > 1:
        words += _option_words(form.options)
    if len({each.split for each in all_forms}) > 1:
        words.append(form.split)
    if len({each.partner for each in all_forms}) > 1:
        words.append(form.partner)
    stem = "-".join(word for word in words if word)
    safe = "".join(character if character.isalnum() or character in "-_=.," else "_" for character in stem)
    return safe if safe == stem and len(safe) <= 100 else f"{safe[:80]}-{_short_hash(stem)}"


def _option_words(options: str) -> list[str]:
    return [f"{value}" if isinstance(value, str) else f"{name}={value}" for name, value in json.loads(options).items()]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def log_to_wandb(
    rows: pandas.DataFrame, *, run: str, analysis: str, config: WandbConfig, folder: Path, say: Callable[[str], None]
) -> None:
    """Log every defined value under `<metric>/<name>` against its step; offline, and said so, if there is no login."""
    try:
        import wandb
    except ImportError as error:
        raise PicoError("monitoring.save_to_wandb: the package wandb is not installed", "pip install 'picolm[wandb]'") from error
    online = wandb_is_online()
    if not online:
        say(f"no W&B login: values are logged offline below {folder / 'wandb'}; `wandb sync` sends them")
    folder.mkdir(parents=True, exist_ok=True)
    logged = wandb.init(
        project=config.project or None,
        entity=config.entity or None,
        name=f"{run}-{analysis}",
        job_type="analysis",
        dir=str(folder),
        mode="online" if online else "offline",
        settings=wandb.Settings(silent=True),
    )
    try:
        logged.define_metric("*", step_metric="step")
        for step, values in _values_by_step(rows).items():
            logged.log({"step": step, **values})
    finally:
        logged.finish()


def _values_by_step(rows: pandas.DataFrame) -> dict[int, dict[str, float]]:
    by_step: dict[int, dict[str, float]] = {}
    for row in plain_records(rows):
        if row["value"] is not None:
            details = [row["split"], *_option_words(row["options"]), row["partner"]]
            metric = " ".join([row["metric"], *(detail for detail in details if detail)])
            by_step.setdefault(row["step"], {})[f"{metric}/{_key(row)}"] = row["value"]
    return dict(sorted(by_step.items()))


def share(rows: pandas.DataFrame, *, run: str, config: AnalysisConfig, folder: Path) -> list[str]:
    """Write the values where `monitoring` wants them; sentences about it. `folder` is that of the rows."""
    sentences: list[str] = []
    monitoring = config.monitoring
    if monitoring.output_dir is not None:
        paths = write_json_layout(rows, Path(monitoring.output_dir) / config.analysis_name)
        sentences.append(f"{len(paths)} JSON files below {monitoring.output_dir}")
    if monitoring.save_to_wandb:
        name = config.analysis_name
        log_to_wandb(rows, run=run, analysis=name, config=monitoring.wandb, folder=folder, say=sentences.append)
    return sentences
