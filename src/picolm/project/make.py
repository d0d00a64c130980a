"""Makes the folder of `pico new`: plain values from templates, a run or one's own text come in; files with comments leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from picolm.analyze.config import AnalysisConfig
from picolm.base.commented import all_values, changed_values, commented_yaml
from picolm.base.config import Settings, parse_settings, parse_yaml
from picolm.base.errors import PicoError
from picolm.data.demo import prepare_demo_data
from picolm.data.documents import read_texts
from picolm.data.prepare import PreparedData, PrepareSettings, prepare
from picolm.data.tokenizer import TextTokenizer, train_tokenizer
from picolm.records.rundir import open_run_directory
from picolm.study.config import StudyConfig
from picolm.train.config import RunConfig, parse_config
from picolm.train.identity import read_config

Say = Callable[[str], None]

TEXT_VOCABULARY, TEXT_ROW_TOKENS = 1024, 128
VAL_SHARE = 0.1
VAL_SEQUENCES = 64
MANY_PASSES = 10
PATH_SETTINGS = ("dataset.name", "dataset.mix", "eval_data", "init_from", "metrics.data", "dataset_name", "analysis.file")
"""Ends of the settings that are paths even without a slash."""


@dataclass(frozen=True)
class Start:
    """What a project starts from: its training file as plain values, and a sentence about its data."""

    training: dict[str, Any]
    data: str


def make_project(folder: Path, start: Start, *, every_setting: bool = False) -> list[Path]:
    """Write the files of a project; what was written. The training file is read back as `pico train` will read it."""
    config = parse_config(start.training, "training.yaml", default_name="training")
    training = _nameless(all_values(config)) if every_setting else start.training
    files = {
        "README.md": template("README.md").replace("$name", folder.resolve().name).replace("$data", start.data),
        "mine.py": template("mine.py"),
        "training.yaml": _settings_file("schemas/training", "What `pico train training.yaml` trains.", type(config), training),
        "analysis.yaml": _settings_file(
            "schemas/analysis",
            "What `pico analyze runs/training analysis.yaml` measures.",
            AnalysisConfig,
            _values("analysis.yaml"),
        ),
        "study/study.yaml": _settings_file("../schemas/study", "What `pico study` asks.", StudyConfig, _study_values(config)),
    } | {f"schemas/{name}.schema.json": _schema(name) for name in ("training", "analysis", "study")}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def refuse_occupied(folder: Path) -> None:
    """PicoError unless `folder` is empty or not there."""
    if folder.exists() and not folder.is_dir():
        raise PicoError(f"{folder} is a file", "name a folder that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise PicoError(f"{folder} is not empty", "name a folder that does not exist yet; nothing is overwritten")


def start_from_language(folder: Path, say: Say) -> Start:
    """A small model on the built-in language, which is made here."""
    values = _values("training.yaml")
    updates, rows = values["training"]["max_steps"], values["data"]["dataloader"]["batch_size"]
    row_tokens = values["model"]["max_seq_len"]
    say("making text of a small language whose entropy is known, and a tokenizer for it")
    data = prepare_demo_data(
        folder / values["data"]["dataset"]["name"],
        seed=values["training"]["seeds"],
        train_tokens=updates * rows * (row_tokens + 1),
        vocab_size=values["model"]["vocab_size"],
        row_length=row_tokens + 1,
        val_tokens=20_000,
        pairs=20,
    )
    floor = data.manifest["entropy_floor_nats_per_token"]
    return Start(
        values, f"text of the built-in language; no model can have less loss than its entropy, {floor:.2f} nats per token"
    )


def start_from_text(folder: Path, sources: list[str], *, documents: str, say: Say) -> Start:
    """A small model on somebody's own text, with a tokenizer learned from it."""
    name = "data/text"
    wanted = {"max_seq_len": TEXT_ROW_TOKENS, "val_share": VAL_SHARE, "documents": documents}
    settings = parse_settings(PrepareSettings, wanted, "pico new")
    say("learning a tokenizer from the text")
    texts = read_texts(sources, column=settings.column, unit=settings.documents)
    tokenizer = train_tokenizer(texts, folder / "data" / "tokenizer.json", vocab_size=TEXT_VOCABULARY)
    say("turning the text into rows of tokens")
    data = _prepared(sources, tokenizer, folder / name, settings)
    splits = data.manifest["splits"]
    values = _values("training.yaml")
    values["data"]["dataset"]["name"] = name
    values["model"] |= {"vocab_size": data.manifest["padded_vocab_size"], "max_seq_len": TEXT_ROW_TOKENS}
    values["checkpointing"]["learning_dynamics"] |= {
        "eval_data": name,
        "eval_sequences": min(VAL_SEQUENCES, splits["val"]["rows"]),
    }
    values["evaluation"]["metrics"] = ["perplexity"]
    rows, length = splits["train"]["rows"], TEXT_ROW_TOKENS + 1
    passes = values["training"]["max_steps"] * values["data"]["dataloader"]["batch_size"] / rows
    say(f"the {values['training']['max_steps']} updates of training.yaml go through the text {passes:.1f} times")
    if passes > MANY_PASSES:
        say("so often that it will be learned by heart: give more text, or fewer training.max_steps")
    return Start(values, f"your text as {rows:,} rows of {length} tokens; every tenth document is held out")


def _prepared(sources: list[str], tokenizer: TextTokenizer, out: Path, settings: PrepareSettings) -> PreparedData:
    try:
        return prepare(sources, tokenizer=tokenizer, out=out, settings=settings)
    except PicoError as error:
        hint = error.hint.replace(", or shorter rows with --max-seq-len", "; with --documents lines a file is many documents")
        raise PicoError(f"{', '.join(sources)}: {error.message}", hint) from error


def start_from_run(folder: Path, run: str) -> Start:
    """The configuration of an existing run; its paths are written as seen from the new folder."""
    config = read_config(open_run_directory(run))
    shown = _values("training.yaml")
    if config.model.model_type != "pico_decoder":
        shown["model"] = {"model_type": config.model.model_type, **shown["model"]}
    values = _nameless(changed_values(config, always=shown))
    relocated: dict[str, Any] = _relocated(values, folder)
    return Start(relocated, f"the data of {run} stay where they are: `{relocated['data']['dataset'].get('name', 'a mixture')}`")


def template(name: str) -> str:
    """The text of a file that comes with the package."""
    return (resources.files("picolm.project") / "templates" / name).read_text(encoding="utf-8")


def _values(name: str) -> dict[str, Any]:
    values: dict[str, Any] = parse_yaml(template(name), name)
    return values


def _settings_file(schema: str, purpose: str, model: type[Settings], values: dict[str, Any]) -> str:
    """A file with comments; its first line tells editors which schema it follows."""
    return f"# yaml-language-server: $schema={schema}.schema.json\n# {purpose}\n\n{commented_yaml(model, values)}"


def _schema(name: str) -> str:
    return (resources.files("picolm.schemas") / f"{name}.schema.json").read_text(encoding="utf-8")


def _study_values(config: RunConfig[Any]) -> dict[str, Any]:
    """The study of the templates; where the run has no perplexity, its training loss is measured."""
    values = _values("study.yaml")
    if "perplexity" not in [entry.row_label for entry in config.evaluation.entries]:
        loss = {"series": "train.loss", "reduce": "mean_last", "k": 5, "better": "lower", "label": "training loss"}
        values["measures"]["final_loss"] = loss
    return values


def _nameless(values: dict[str, Any]) -> dict[str, Any]:
    """Without the name and the place of a run: a new one is called after its file, below `runs`."""
    kept = {key: value for key, value in values["checkpointing"].items() if key not in ("run_name", "runs_dir")}
    return {**values, "checkpointing": kept}


def _relocated(value: Any, folder: Path, key: str = "") -> Any:
    """Every path in `value` that exists, seen from here, as one that is right seen from `folder`.

    A bare word is taken for a path only where a setting is one: `plain` is a method, whatever folders there are.
    """
    if isinstance(value, dict):
        mixed = key == "data.dataset.mix"
        return {
            _relocated(name, folder, key) if mixed else name: _relocated(item, folder, f"{key}.{name}".lstrip("."))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_relocated(item, folder, key) for item in value]
    if not isinstance(value, str) or not ("/" in value or key.endswith(PATH_SETTINGS)):
        return value
    place, colon, thing = value.rpartition(":") if ".py:" in value else (value, "", "")
    if Path(place).is_absolute() or not Path(place).exists():
        return value
    return Path(os.path.relpath(place, folder)).as_posix() + colon + thing
