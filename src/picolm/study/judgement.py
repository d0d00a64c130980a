"""`judgement.json`: everything that was found about a study, as the report shows it. Written by `judge`, read by the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from picolm.base.errors import PicoError
from picolm.records import durable

FORMAT = "picolm.judgement/1"

Verdict = Literal["supported", "refuted", "inconclusive", "invalid", "exploratory"]
Scale = Literal["difference", "log ratio", "slope", "smallest step", "share", "distance", "exact"]


class Record(pydantic.BaseModel):
    """Frozen; infinities are written as null by leaving the field None."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Interval(Record):
    """An interval; a null end is open."""

    low: float | None
    high: float | None
    level: float
    """Nominal coverage, such as 0.95."""
    method: str
    """How it was made: `paired t`, `Clopper-Pearson`, `two-level bootstrap over seeds and items`, ..."""


class SeedEffect(Record):
    """What one seed says about a prediction."""

    seed: int
    effect: float
    """Oriented: positive is as predicted; on the prediction's scale."""
    of: float | None = None
    """The measure of the variant the prediction is about, as measured."""
    versus: float | None = None
    """The measure of the variant it is compared with."""
    note: str = ""
    """`censored at budget`, `diverged: counted as the worst`, ... Empty: an ordinary pair."""


class LeftOut(Record):
    """What the other seeds say without one."""

    seed: int
    mean: float
    p: float | None
    """One-sided p of the statement that was decided, without this seed."""


class Probability(Record):
    """Share of seeds on the predicted side of zero."""

    value: float
    interval: Interval
    wins: int
    n: int
    """Seeds with any difference."""


class Tests(Record):
    """The p values of a prediction at the look that counts. Null: not tested (exploratory, exact, or before its turn)."""

    p_supported: float | None = None
    """One-sided p of "the effect is at most the threshold": small means the prediction holds."""
    p_refuted: float | None = None
    """One-sided p of "the effect is at least the threshold": small means it does not."""
    p_supported_adjusted: float | None = None
    """After the family's adjustment."""
    p_refuted_adjusted: float | None = None
    p_floor: float | None = None
    """The smallest p that so many seeds can give."""
    threshold: float | None = None
    """What the adjusted p must not exceed at this look."""
    method: str = ""
    """Such as `exact sign-flip, 64 sign vectors`."""


class Planning(Record):
    """What it would take, from the declared effect and never from the observed one."""

    expect: float | None = None
    """The declared effect on the prediction's scale; for equivalence no difference at all."""
    sd_upper: float | None = None
    """Upper 80% limit of the standard deviation of the differences."""
    power: float | None = None
    """Power of this study for the declared effect."""
    minimum_detectable: float | None = None
    """The effect found with 80% power at this number of seeds, on the prediction's scale; for equivalence the smallest margin."""
    seeds_needed: int | None = None
    """Seeds in all for 80% power at the declared effect. Null: no effect was declared, or more than 1,000."""
    fits_budget: bool | None = None
    """Whether so many seeds are declared (confirmation and reserve)."""
    sentence: str = ""
    """The same in words."""


class CurveBand(Record):
    """Oriented difference of two curves with a simultaneous band, on common points."""

    x_name: str
    """tokens, log_tokens, step, ..."""
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    p: tuple[float, ...] = ()
    """Adjusted for looking at every point. Empty: not tested."""
    level: float
    threshold: float = 0.0
    """The difference to be exceeded."""
    first_separation: float | None = None
    """The x from which on the curves are apart. Null: they are not at the end."""


class Fact(Record):
    """One more number of a prediction with its name: restricted means, Page's L, number of phases, ..."""

    name: str
    value: float | str | None
    note: str = ""
    is_test: bool = False
    """Whether it tells a p value: left out where nothing is tested."""


class PredictionJudgement(Record):
    """One prediction: what was declared, what was seen, what follows."""

    name: str
    kind: str
    sentence: str
    """The prediction in words: `final of specified is lower than that of published by more than 0.02`."""
    note: str = ""
    """The author's note."""
    primary: bool
    in_family: bool
    """False: descriptive; it is estimated and never tested."""
    of: str = ""
    """The variant it is about; empty where it is about several."""
    versus: str = ""
    variants: tuple[str, ...] = ()
    """Every variant that it looks at."""
    measure: str
    """The measure's name; the response for event alignment."""
    label: str
    """What the report calls the measure."""
    direction: str = ""
    """lower, higher, either, increasing, decreasing; empty where there is none."""
    scale: Scale = "difference"
    """What `effect` is. log ratio: natural logarithm; exp gives the factor."""
    at_least: float = 0.0
    """The threshold on the effect's scale; for equivalence minus the margin."""
    margin: float | None = None
    """The equivalence margin on the effect's scale."""

    verdict: Verdict
    sub_label: str = ""
    """refuted: reversed, negligible, too small, outside the margin, violated, ...; inconclusive: before the first look,
    checks outstanding, not reached, not testable, not resolvable in budget; supported: fragile; exploratory: descriptive.
    Empty: nothing to add."""
    fragile: bool = False
    """Whether leaving out one seed takes the verdict's ground away."""
    reason: str
    """Why this verdict, in one sentence."""

    effects: tuple[SeedEffect, ...] = ()
    mean: float | None = None
    median: float | None = None
    sd: float | None = None
    intervals: tuple[Interval, ...] = ()
    """For the mean effect; the first is the one to draw."""
    effect_size: float | None = None
    """d_z, corrected for few seeds."""
    probability_of_improvement: Probability | None = None
    tests: Tests = Field(default_factory=Tests)
    look: int | None = None
    """Seeds at the look that counts. Null: no look was reached, or none is needed."""
    leave_one_out: tuple[LeftOut, ...] = ()
    outliers: tuple[int, ...] = ()
    """Seeds far from the others (modified z above 3.5)."""
    noise_sd: float | None = None
    """Standard deviation of the measure over A/A runs, where a noise-floor check looked at it."""
    planning: Planning = Field(default_factory=Planning)
    curve: CurveBand | None = None
    facts: tuple[Fact, ...] = ()


class CheckResult(Record):
    """One gate: what was looked at, what was asked, what was found."""

    name: str
    kind: str
    passed: bool | None
    """None: it only reports, or there is nothing to look at yet."""
    pending: bool = False
    """Whether it still has to pass: until then no prediction gets a verdict."""
    sentence: str
    """What was found, in one sentence."""
    variants: tuple[str, ...] = ()
    value: float | None = None
    limit: float | None = None
    details: tuple[str, ...] = ()
    """One line per run or file that is not as it should be."""


class ParityRow(Record):
    """One quantity over the variants."""

    quantity: str
    required: bool
    """Whether a difference makes the study invalid; otherwise it is only reported."""
    equal: bool | None
    """Within every seed, over all variants. None: unknown for some run."""
    values: dict[str, str]
    """Variant -> what its runs have, in words; several values are joined by a comma."""


class RunOutcome(Record):
    """A run that did not end in the ordinary way, and how it was counted."""

    variant: str
    seed: int
    phase: str
    outcome: Literal["diverged", "crashed"]
    counted_as: str
    """`worst`, `left out with its pair`, ..."""
    note: str = ""


class VariantSummary(Record):
    """One variant: its role and what it changes."""

    name: str
    role: str
    label: str
    changes: dict[str, Any]
    """Dotted key -> value, only what differs from the base configuration."""
    runs: int
    """Finished runs of the confirmation seeds."""
    parameters: int | None = None


class Curve(Record):
    """One series of one run, for drawing."""

    measure: str
    variant: str
    seed: int
    phase: str
    x_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class Value(Record):
    """One measure of one run."""

    measure: str
    variant: str
    seed: int
    phase: str
    value: float | None
    censored: bool = False
    note: str = ""


class Seeds(Record):
    """Which seeds do what."""

    tuning: tuple[int, ...] = ()
    confirm: tuple[int, ...] = ()
    reserve: tuple[int, ...] = ()
    used: tuple[int, ...] = ()
    """Seeds that the verdict rests on."""


class Judgement(Record):
    """The whole study: verdict first."""

    format: Literal["picolm.judgement/1"] = "picolm.judgement/1"
    study: str
    """The study's id."""
    mode: Literal["confirmatory", "exploratory"]
    statement: str
    rationale: dict[str, Any] = Field(default_factory=dict)
    verdict: Verdict
    exit_code: int
    conclusion: str
    """One paragraph of plain words; who reads only this is not misled."""
    made: str
    """When it was judged, ISO 8601 in UTC."""
    lock_hash: str | None = None
    locked: str | None = None
    """When it was locked. Null: it is not."""
    first_run: str | None = None
    """When the first confirmation run began."""
    alpha: float
    family_method: str
    family_order: tuple[str, ...] = ()
    looks: tuple[int, ...]
    thresholds: tuple[float, ...]
    """Per look: what p must not exceed, the same for every prediction."""
    next_look: int | None = None
    """Number of seeds at which it is judged next. Null: it is decided, or no declared look is left."""
    seeds: Seeds
    variants: tuple[VariantSummary, ...]
    checks: tuple[CheckResult, ...]
    parity: tuple[ParityRow, ...]
    predictions: tuple[PredictionJudgement, ...]
    failures: tuple[RunOutcome, ...] = ()
    deviations: tuple[str, ...] = ()
    """What differs from what was locked or declared, in sentences."""
    values: tuple[Value, ...] = ()
    curves: tuple[Curve, ...] = ()
    extend_command: str = ""
    """What to run for more seeds. Empty: nothing is left to run."""
    versions: dict[str, str] = Field(default_factory=dict)


def write_judgement(path: Path, judgement: Judgement) -> None:
    """Put the judgement at `path`, whole or not at all."""
    durable.write_json(path, judgement.model_dump(mode="json"))


def read_judgement(path: Path) -> Judgement:
    """The judgement at `path`; PicoError if there is none or it is of another format."""
    try:
        return Judgement.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PicoError(f"there is no {path}", "`pico study judge` makes it") from error
    except pydantic.ValidationError as error:
        raise PicoError(f"{path} is not of the format {FORMAT}: {error.errors()[0]['msg']}", "judge again") from error
