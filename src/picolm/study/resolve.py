"""Turns a declared study into configurations: variants x seeds (x values to be tuned), each resolved as `pico train` would."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picolm.base.config import apply_overrides, flatten, identity_hash, read_yaml
from picolm.base.errors import PicoError, suggestion
from picolm.data.contract import TokenSource
from picolm.data.tokenizer import load_tokenizer
from picolm.records.manifest import content, hash_file
from picolm.records.studydir import StudyDirectory
from picolm.study.config import STREAMS, StudyConfig, TuningConfig
from picolm.study.lock import LockedCell, LockedVariant, Phase
from picolm.study.spec_checks import PositiveControlCheck
from picolm.study.tamper import hash_of_path
from picolm.train.config import RunConfig, parse_config
from picolm.train.evaluation import checked_evaluations
from picolm.train.inputs import describe_data, open_checked_data
from picolm.train.plan import plan_run

PLACE_KEYS = ("checkpointing.run_name", "checkpointing.runs_dir")
"""Settings that say where a run is, not what it is."""


@dataclass(frozen=True)
class Resolved:
    """Everything a lock holds about the runs."""

    base: dict[str, Any]
    base_name: str
    variants: dict[str, LockedVariant]
    data: dict[str, dict[str, Any]]
    files: dict[str, str]
    cells: tuple[LockedCell, ...]


@dataclass(frozen=True)
class Place:
    """One place of the matrix before it is resolved."""

    variant: str
    seed: int
    phase: Phase
    value: Any = None
    control: PositiveControlCheck | None = None

    @property
    def name(self) -> str:
        """Name of its run folder."""
        parts = [self.control.name if self.control else self.variant, _short(self.value), f"seed-{self.seed}"]
        return "-".join(part for part in parts if part)


@dataclass
class Opened:
    """Data sources opened so far: the fingerprint of the same data is asked for once."""

    sources: dict[str, TokenSource] = field(default_factory=dict)

    def of(self, config: RunConfig[Any]) -> TokenSource:
        """The checked data of a configuration."""
        key = json.dumps([config.data.model_dump(mode="json"), config.model.vocab_size, config.model.max_seq_len])
        if key not in self.sources:
            self.sources[key] = open_checked_data(config)
        return self.sources[key]


def resolve_study(study: StudyConfig, directory: StudyDirectory, names: Mapping[str, str], version: int) -> Resolved:
    """Every run that may be needed, resolved. `names`: content -> run folder of the version before, which is kept."""
    source = str(directory.definition)
    base_file = directory.beside_definition(study.base)
    base = read_yaml(base_file)
    opened = Opened()
    found: list[LockedCell] = []
    folders = dict(names)
    for place in places(study):
        overrides, config = configuration(study, base, place, source, opened)
        sort = content_of(config, opened.of(config), study.execution.threads)
        folders.setdefault(sort, _free_name(place.name, folders, version))
        found.append(
            LockedCell(
                variant=place.variant,
                seed=place.seed,
                phase=place.phase,
                control=place.control.name if place.control else "",
                value=place.value,
                run=folders[sort],
                overrides=tuple(overrides),
                config_hash=identity_hash(config),
                content=sort,
            )
        )
    first = study.seeds.confirm[0]
    variants = {
        name: configuration(study, base, Place(name, first, "confirm", _values(study.tuning, name)[0]), source, opened)[1]
        for name in study.variants
    }
    for name, config in variants.items():
        check_runnable(config, opened.of(config), f"{source}: variants.{name}")
    return Resolved(
        base=base,
        base_name=base_file.name,
        variants=_locked_variants(study, variants),
        data={Path(data.name).name: describe_data(data) for data in opened.sources.values()},
        files=_files(study, directory, variants.values()),
        cells=tuple(found),
    )


def check_runnable(config: RunConfig[Any], data: TokenSource, where: str) -> None:
    """PicoError for what a run would stumble over later: method, model, capture, evaluations. Nothing is written."""
    tokenizer = None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file)
    try:
        plan_run(config)
        checked_evaluations(config, data, tokenizer)
    except PicoError as error:
        raise PicoError(f"{where}: {error.message}", error.hint) from error


def places(study: StudyConfig) -> Iterator[Place]:
    """The matrix in the order in which it is run: tuning, then round by round over the seeds, so that what is there is paired."""
    for seed in study.seeds.tuning:
        for variant in study.variants:
            for value in _values(study.tuning, variant):
                yield Place(variant, seed, "tuning", value)
    for check in study.checks:
        if isinstance(check, PositiveControlCheck):
            variant = check.variant or study.baseline
            for seed in check.seeds or study.seeds.tuning or study.seeds.confirm:
                for value in _values(study.tuning, variant):
                    yield Place(variant, seed, "control", value, check)
    rounds: list[tuple[Phase, Sequence[int]]] = [("confirm", study.seeds.confirm), ("reserve", study.seeds.reserve)]
    for phase, seeds in rounds:
        for seed in seeds:
            for variant in study.variants:
                for value in _values(study.tuning, variant):
                    yield Place(variant, seed, phase, value)


def _values(tuning: TuningConfig | None, variant: str) -> tuple[Any, ...]:
    if tuning is None or (tuning.variants and variant not in tuning.variants):
        return (None,)
    return tuning.grid


def configuration(
    study: StudyConfig, base: dict[str, Any], place: Place, source: str, opened: Opened
) -> tuple[list[str], RunConfig[Any]]:
    """The overrides of one place, and the configuration they give."""
    where = f"{source}: variants.{place.variant}"
    overrides = _assignments(study.variants[place.variant].set, lambda: parse(base, [], where), where)
    if study.tuning is not None and place.value is not None:
        overrides.append(_assignment(study.tuning.key, place.value))
    if place.control is not None:
        before = list(overrides)
        control_where = f"{source}: checks ({place.control.name})"
        overrides += _assignments(place.control.set, lambda: parse(base, before, control_where), control_where)
    overrides += _seed_assignments(study, place)
    config = parse(base, overrides, where)
    steps = _steps_of_budget(study, config, opened)
    if steps is not None and steps != config.training.max_steps:
        overrides.append(_assignment("training.max_steps", steps))
        config = parse(base, overrides, where)
    return overrides, config


def parse(base: dict[str, Any], overrides: Sequence[str], source: str) -> RunConfig[Any]:
    """The resolved configuration: the base with overrides; errors name the variant."""
    return parse_config(apply_overrides(base, overrides), source, default_name="run")


def _assignment(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def _assignments(settings: Mapping[str, Any], config_before: Any, source: str) -> list[str]:
    """`key=value` for each override; a factor such as `x0.5` is applied to the value the key has without it."""
    found = []
    for key, value in settings.items():
        if isinstance(value, str) and (factor := _factor(value)) is not None:
            value = _multiplied(flatten(config_before()), key, factor, source)
        found.append(_assignment(key, value))
    return found


def _factor(text: str) -> float | None:
    if not text.startswith("x"):
        return None
    try:
        return float(text[1:])
    except ValueError:
        return None


def _multiplied(flat: dict[str, Any], key: str, factor: float, source: str) -> float | int:
    value = flat.get(key)
    if key not in flat:
        raise PicoError(f"{source}: {key} is not a setting", suggestion(key, flat))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PicoError(f"{source}: {key} is {value!r} and cannot be multiplied", "give the value itself")
    return round(value * factor) if isinstance(value, int) else value * factor


def _seed_assignments(study: StudyConfig, place: Place) -> list[str]:
    """The seed of every stream: shared ones alike in all variants, the others drawn from seed, stream and variant."""
    seeds = {}
    for stream in STREAMS:
        own = stream not in study.seeds.share and place.variant != study.baseline
        seeds[stream] = _own_seed(place.variant, stream, place.seed) if own else place.seed
    return [f"training.seeds.{stream}={seed}" for stream, seed in seeds.items()]


def _own_seed(variant: str, stream: str, seed: int) -> int:
    """A seed below 2^31 that differs from variant to variant and from stream to stream."""
    return int.from_bytes(hashlib.sha256(f"{variant}/{stream}/{seed}".encode()).digest()[:4], "big") >> 1


def _steps_of_budget(study: StudyConfig, config: RunConfig[Any], opened: Opened) -> int | None:
    budget = study.budget
    if budget.value is None or budget.axis == "steps":
        return budget.value
    row_tokens = opened.of(config).split("train").row_length - 1
    return math.ceil(budget.value / (config.data.dataloader.batch_size * row_tokens))


def content_of(config: RunConfig[Any], data: TokenSource, threads: int) -> str:
    """Hash that two runs share if they are the same: every setting but the place, the data, the threads."""
    flat = {key: value for key, value in flatten(config).items() if key not in PLACE_KEYS}
    return content({"config": flat, "data": data.fingerprint, "threads": threads})


def _free_name(name: str, folders: Mapping[str, str], version: int) -> str:
    return f"{name}-v{version}" if name in folders.values() else name


def _short(value: Any) -> str:
    """A value as part of a folder name; empty for none."""
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    plain = all(character.isalnum() or character in "._-" for character in text)
    return text if plain and len(text) <= 24 else content(value)[:8]


def _locked_variants(study: StudyConfig, configs: Mapping[str, RunConfig[Any]]) -> dict[str, LockedVariant]:
    flats = {
        name: {key: value for key, value in flatten(config).items() if key not in PLACE_KEYS} for name, config in configs.items()
    }
    baseline = flats[study.baseline]
    return {
        name: LockedVariant(
            role=study.variants[name].role,
            changes={
                key: (baseline.get(key), flat.get(key))
                for key in sorted(baseline.keys() | flat.keys())
                if baseline.get(key) != flat.get(key) and not key.startswith("training.seeds.")
            },
            config=flat,
        )
        for name, flat in flats.items()
    }


def _files(study: StudyConfig, directory: StudyDirectory, configs: Any) -> dict[str, str]:
    """Hashes of what is read besides the training data: analysis files, and local data of evaluations and snapshots."""
    found = {}
    for name, reference in study.analyses.items():
        path = directory.beside_definition(reference)
        found[f"analyses.{name}"] = hash_file(path).sha256 if path.is_file() else content(reference)
    for config in configs:
        for reference in _references(config):
            path = Path(reference)
            if path.exists():
                found[reference] = hash_of_path(path)
    return found


def _references(config: RunConfig[Any]) -> Iterator[str]:
    dynamics = config.checkpointing.learning_dynamics
    if dynamics.enabled and dynamics.eval_data is not None:
        yield dynamics.eval_data
    for entry in config.evaluation.entries:
        yield from (value for value in config.evaluation.options_of(entry).values() if isinstance(value, str))
