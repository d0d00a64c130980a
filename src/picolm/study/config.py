"""The file of a study: what is believed, what is compared, on which seeds, what is measured, what is predicted, and when to stop.

`load_study` reads it strictly: an unknown key, or a name that nothing has, is one error with the nearest right one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from picolm.base.config import OPERATIONAL, OperationalMark, Settings, parse_settings, read_yaml
from picolm.base.errors import PicoError
from picolm.records.rundir import check_run_name
from picolm.study.names import check_names
from picolm.study.spec_checks import Check
from picolm.study.spec_measures import MeasureConfig
from picolm.study.spec_predictions import PredictionConfig

Role = Literal["baseline", "control", "treatment"]
Stream = Literal["init", "data", "dropout", "method", "capture"]
"""The named streams of random numbers of a run: `training.seeds`."""
STREAMS: tuple[Stream, ...] = ("init", "data", "dropout", "method", "capture")
Fact = Literal["tokens", "steps", "data", "tokenizer", "evaluation", "parameters", "flops", "seconds"]
"""What can be equal between variants: a number of the run, or the hash of what it was trained or measured on."""


class RationaleConfig(Settings):
    """`rationale`: why the study is made."""

    source: Annotated[str, OPERATIONAL] = ""
    """Paper, thread or observation it comes from."""
    notes: Annotated[str, OPERATIONAL] = ""
    """What a reader should know beforehand."""


class LanguageConfig(Settings):
    """`language`: built-in synthetic text that is made, once, before the first run, if its folder is not there."""

    folder: str
    """Folder of prepared data to make, as `data.dataset.name` of the base configuration names it."""
    train_tokens: PositiveInt
    """Least number of training tokens."""
    vocab_size: PositiveInt = 512
    """Vocabulary of the tokenizer that is trained for it."""
    row_tokens: PositiveInt = 64
    """Tokens a row predicts."""
    val_tokens: PositiveInt = 100_000
    """Least number of held-out tokens."""
    pairs: PositiveInt = 50
    """Minimal pairs per phenomenon."""
    seed: NonNegativeInt = 42
    """Seed of all texts."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Knobs of the language, such as `{depth: 3}`."""


class VariantConfig(Settings):
    """`variants.<name>`: one of the alternatives compared."""

    role: Role
    """baseline: what one would do otherwise; control: shows that something is due to the treatment; treatment: the idea."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the base configuration by dotted key; `x0.5` multiplies the base's own value."""
    label: Annotated[str, OPERATIONAL] = ""
    """What the report calls it. Empty: its name."""


class TuningConfig(Settings):
    """`tuning`: one setting is picked per variant on the tuning seeds, before the runs that count."""

    key: str
    """Dotted key that is tuned, such as `training.optimization.lr`."""
    grid: Annotated[tuple[Any, ...], Field(min_length=2)]
    """Values tried, in each variant."""
    pick: str
    """Measure whose mean over the tuning seeds decides, by its `better`. A value with a diverged run is never picked."""
    variants: tuple[str, ...] = ()
    """Variants that are tuned. Empty: all. The others keep their own value."""
    per_variant: bool = True
    """Whether each variant gets its own value. False: one value for all, the best on average."""


class SeedsConfig(Settings):
    """`seeds`: which seeds serve what. A seed is the unit of replication; each is run in every variant."""

    tuning: tuple[NonNegativeInt, ...] = ()
    """Seeds for choosing settings and for knowing the noise. They never enter the claim."""
    confirm: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """Seeds the claim rests on, in the order in which they are run."""
    reserve: tuple[NonNegativeInt, ...] = ()
    """Seeds that are run only if the first look does not decide, in order."""
    share: tuple[Stream, ...] = STREAMS
    """Streams of random numbers that all variants draw alike under the same seed. The others differ from variant to variant."""

    @pydantic.model_validator(mode="after")
    def _no_seed_twice(self) -> SeedsConfig:
        seen: dict[int, str] = {}
        for purpose in ("tuning", "confirm", "reserve"):
            for seed in getattr(self, purpose):
                if seed in seen:
                    raise ValueError(f"seed {seed} is in {seen[seed]} and in {purpose}: each serves one purpose, once")
                seen[seed] = purpose
        return self


class BudgetConfig(Settings):
    """`budget`: what every run may spend, and what must be equal between variants."""

    axis: Literal["tokens", "steps"] = "tokens"
    """What `value` counts, and what curves are drawn over."""
    value: PositiveInt | None = None
    """What every run spends: sets `training.max_steps`, tokens rounded up to whole steps. Null: as configured."""
    max_core_hours: PositiveFloat | None = None
    """Core-hours all runs together may take; `pico study plan` refuses a study that needs more. Null: no limit."""
    parity: tuple[Fact, ...] = ("tokens", "data", "tokenizer", "evaluation")
    """What must be equal between variants; if it is not, the study is invalid."""
    report: tuple[Fact, ...] = ("parameters", "flops", "seconds")
    """What is shown beside, without being required."""


class FamilyConfig(Settings):
    """`family`: the predictions that get a verdict, and how the error is kept in check over all of them."""

    method: Literal["fixed_sequence", "holm"] = "fixed_sequence"
    """fixed_sequence: each at full alpha, as long as all before it were supported. holm: all at once, thresholds adjusted."""
    order: tuple[str, ...] = ()
    """Predictions of the family in order. The others are described, without a verdict. Empty: all, in the order of the file."""


class StoppingConfig(Settings):
    """`stopping`: after how many seeds the data are looked at. Fixed beforehand: looking at will inflates the error."""

    looks: Annotated[tuple[PositiveInt, ...], Field(max_length=2)] = ()
    """Numbers of seeds at which the data are judged, at most two. Empty: once, after all confirmation seeds."""
    spend: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    """Level at each look. Empty with one look: alpha."""
    futility: Literal["cannot_reach", "none"] = "cannot_reach"
    """cannot_reach: the second look is skipped if no outcome of the reserve seeds could still be significant."""


class FailuresConfig(Settings):
    """`failures`: how runs count that did not end well. Declared beforehand, so that nobody chooses afterwards."""

    diverged: Literal["worst_rank", "drop_seed", "invalid"] = "worst_rank"
    """A run whose loss stopped being finite: counts as worst of all; its seed is left out everywhere; or the study is invalid."""
    crashed: Literal["rerun_same_seed", "count_as_missing"] = "rerun_same_seed"
    """A run that ended for another reason: repeated with `pico study run`, or missing."""
    max_missing: NonNegativeInt = 0
    """Seeds that may be missing before the study is invalid."""
    reruns: Annotated[NonNegativeInt, OPERATIONAL] = 1
    """How often one call of `pico study run` repeats a run that crashed."""


class ExecutionConfig(Settings):
    """`execution`: how runs are carried out."""

    threads: PositiveInt = 1
    """Threads of every run: fixed, because the order of sums depends on it."""
    at_once: Annotated[PositiveInt | None, OPERATIONAL] = None
    """Runs at the same time. Null: as many as cores and memory allow."""


class StudyConfig(Settings):
    """A whole study."""

    format: Literal["picolm.study/1"] = "picolm.study/1"
    """Version of this file's layout."""
    id: str
    """Short name: letters, digits, dot, dash, underscore."""
    mode: Literal["confirmatory", "exploratory"] = "confirmatory"
    """confirmatory: predictions get a verdict. exploratory: estimates with intervals, no p value and no verdict, ever."""
    statement: str
    """The hypothesis in one sentence that could be wrong."""
    rationale: RationaleConfig = RationaleConfig()
    base: str
    """Training file that every variant starts from; the path is relative to this file."""
    language: LanguageConfig | None = None
    """Built-in text to make if it is not there. Null: the data named in the base configuration exist."""
    variants: Annotated[dict[str, VariantConfig], Field(min_length=1)]
    """Name -> what is compared. Exactly one has the role baseline."""
    tuning: TuningConfig | None = None
    """A setting to be picked per variant beforehand. Null: none."""
    seeds: SeedsConfig
    budget: BudgetConfig = BudgetConfig()
    measures: Annotated[dict[str, MeasureConfig], Field(min_length=1)]
    """Name -> what is measured in every run."""
    analyses: dict[str, str] = Field(default_factory=dict)
    """Analysis of `analysis.<name>` measures -> its file, relative to this one, or the name of one that comes along (table5)."""
    checks: tuple[Check, ...] = ()
    """What must hold before the predictions are looked at."""
    predictions: dict[str, PredictionConfig] = Field(default_factory=dict)
    """Name -> what is predicted."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of false claims that is accepted, over the whole family."""
    family: FamilyConfig = FamilyConfig()
    stopping: StoppingConfig = StoppingConfig()
    failures: FailuresConfig = FailuresConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @pydantic.field_validator("id")
    @classmethod
    def _usable_id(cls, name: str) -> str:
        return _folder_name(name, "id")

    @property
    def baseline(self) -> str:
        """The variant with the role baseline."""
        return next(name for name, variant in self.variants.items() if variant.role == "baseline")

    @property
    def family_order(self) -> tuple[str, ...]:
        """Names of the predictions that get a verdict, in order."""
        return self.family.order or tuple(self.predictions)

    @property
    def primary(self) -> tuple[str, ...]:
        """Predictions the verdict on the hypothesis rests on: those marked so, or else the first of the family."""
        marked = tuple(name for name in self.family_order if self.predictions[name].primary)
        return marked or self.family_order[:1]

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which the data are judged."""
        return self.stopping.looks or (len(self.seeds.confirm),)

    @property
    def spend(self) -> tuple[float, ...]:
        """Level at each look."""
        return self.stopping.spend or (self.alpha,)


def _folder_name(name: str, setting: str) -> str:
    try:
        return check_run_name(name, setting)
    except PicoError as error:
        raise ValueError(f"{error.message}: {error.hint}") from error


def load_study(path: Path) -> StudyConfig:
    """The study in a file, or in the `study.yaml` of a folder; PicoError names what is wrong and what would be right."""
    file = path / "study.yaml" if path.is_dir() else path
    return parse_study(read_yaml(file), str(file))


def parse_study(content: dict[str, Any], source: str) -> StudyConfig:
    """The study in `content`; `source` names it in errors."""
    study = parse_settings(StudyConfig, content, source)
    check_names(study, source)
    return study


def substance(study: StudyConfig) -> dict[str, Any]:
    """Dotted key -> value of everything declared; labels, notes and how runs are carried out are left out."""
    return dict(_leaves(study, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Settings):
        for name, field in type(value).model_fields.items():
            if not any(isinstance(mark, OperationalMark) for mark in field.metadata):
                yield from _leaves(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}")
    elif isinstance(value, tuple) and any(isinstance(inner, Settings) for inner in value):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{number}")
    else:
        yield key, list(value) if isinstance(value, tuple) else value
