"""What a study can find: the smallest p its seeds can give, the smallest effect it would see, and why it may be refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from picolm.study.config import StudyConfig
from picolm.study.lock import StudyLock
from picolm.study.matrix import Cell
from picolm.study.spec_checks import HeadroomCheck, PositiveControlCheck

LEAST_POWER = 0.5
"""Below this power a note says that the study will probably not decide."""


@dataclass(frozen=True)
class Look:
    """One declared look at the data, for one prediction."""

    seeds: int
    threshold: float
    """What p must not exceed; under Holm the strictest, that of the smallest p."""
    floor: float | None
    """The smallest p possible. None: chance plays no part."""
    minimum_detectable: float | None
    """The effect (or margin) that is found with 80% power. None: the noise is not known, or there is no formula."""
    power: float | None
    """For what is expected. None: likewise, or nothing is expected."""

    @property
    def can_decide(self) -> bool:
        return self.floor is None or self.floor <= self.threshold


@dataclass(frozen=True)
class PredictionReach:
    """What a prediction's tests can find."""

    name: str
    sentence: str
    in_family: bool
    looks: tuple[Look, ...]
    noise: float | None
    """Standard deviation of the paired effects over the tuning seeds. None: fewer than two of them are complete."""
    noise_upper: float | None
    """Its upper 80% limit, which the power rests on."""
    seeds_needed: int | None
    """Seeds for 80% power for what is expected; None: not known, or more than 1,000."""


@dataclass(frozen=True)
class Refusal:
    """Why a confirmatory study should not be made, and what would mend it."""

    reason: str
    mend: str


def reach_of(study: StudyConfig, name: str, tuning: Sequence[Cell]) -> PredictionReach:
    """What one prediction can find, with the noise of the tuning runs if there are any."""
    from picolm.study.predictions.contract import kind_of
    from picolm.study.statistics.power import sd_upper_limit

    prediction = study.predictions[name]
    kind = kind_of(prediction)
    model = kind.power_model(prediction)
    effects = tuning_effects(study, name, tuning)
    noise = _deviation(effects)
    upper = None if noise is None else sd_upper_limit(noise, len(effects))
    looks = []
    for seeds, threshold in zip(study.looks, thresholds(study), strict=True):
        known = model is not None and upper is not None
        looks.append(
            Look(
                seeds=seeds,
                threshold=threshold,
                floor=kind.floor(prediction, seeds),
                minimum_detectable=model.smallest(upper, seeds, threshold) if known and model and upper is not None else None,
                power=model.power(upper, seeds, threshold) if known and model and upper is not None else None,
            )
        )
    needed = model.needed(upper, thresholds(study)[-1]) if model is not None and upper is not None else None
    return PredictionReach(name, kind.sentence(prediction, study), name in study.family_order, tuple(looks), noise, upper, needed)


def thresholds(study: StudyConfig) -> tuple[float, ...]:
    """Per look the level that a prediction must reach; under Holm that of the smallest p of the family."""
    members = len(study.family_order) if study.family.method == "holm" else 1
    return tuple(level / members for level in study.spend)


def tuning_effects(study: StudyConfig, name: str, tuning: Sequence[Cell]) -> list[float]:
    """The paired effects of a prediction on the tuning seeds whose runs are complete; they never enter the claim."""
    from picolm.base.errors import PicoError
    from picolm.study.measures import Measured, measure_run
    from picolm.study.predictions.contract import kind_of
    from picolm.study.spec_predictions import measures_of

    prediction = study.predictions[name]
    wanted = [measure for _, measure in measures_of(prediction)]
    complete = [cell for cell in tuning if cell.status == "complete"]
    seeds = [seed for seed in study.seeds.tuning if {c.variant for c in complete if c.seed == seed} == set(study.variants)]
    if not seeds:
        return []
    runs = {(cell.variant, cell.seed): measure_run(study, cell, wanted) for cell in complete}
    try:
        evidence = kind_of(prediction).evidence(prediction, Measured(study, runs), seeds)
    except PicoError:
        return []
    return [effect.value for effect in evidence.effects]


def _deviation(values: Sequence[float]) -> float | None:
    import statistics

    return statistics.stdev(values) if len(values) >= 2 else None


def refusals_of(
    study: StudyConfig,
    lock: StudyLock,
    reach: Sequence[PredictionReach],
    tuning: Sequence[Cell],
    error: float | None,
    core_hours: float | None,
) -> list[Refusal]:
    """Why this study should not be made; empty if nothing speaks against it. An exploratory one is refused for its cost alone."""
    found = _too_expensive(study, core_hours)
    if lock.mode == "exploratory":
        return found
    found += [refusal for prediction in reach if prediction.in_family for refusal in _cannot_reach(study, prediction)]
    found += _expects_too_little(study)
    found += _cannot_disagree(study, lock)
    found += _at_the_ceiling(study, tuning)
    found += _unequal_budgets(study, lock)
    if error is not None and error > study.alpha * 1.001:
        found.append(
            Refusal(
                f"the looks together accept a false claim in {error:.1%} of studies with no effect; alpha is {study.alpha:.1%}",
                "lower the levels in stopping.spend: for looks at 6 and 10 seeds [0.015625, 0.04] keeps 5%",
            )
        )
    return found


def _too_expensive(study: StudyConfig, core_hours: float | None) -> list[Refusal]:
    limit = study.budget.max_core_hours
    if limit is None or core_hours is None or core_hours <= limit:
        return []
    return [
        Refusal(
            f"the runs take {core_hours:.2f} core-hours, the budget is {limit:g}",
            "shorten the runs, or raise budget.max_core_hours",
        )
    ]


def _cannot_reach(study: StudyConfig, prediction: PredictionReach) -> list[Refusal]:
    from picolm.study.statistics.paired import p_floor, seeds_for_floor

    found = []
    for look in prediction.looks:
        if look.can_decide or look.floor is None:
            continue
        sides = round(look.floor / p_floor(look.seeds))
        needed = seeds_for_floor(look.threshold / sides)
        ways = [f"at least {needed} seeds at this look"]
        if study.family.method == "holm" and len(study.family_order) > 1:
            ways.append("family.method: fixed_sequence, if the predictions have a natural order")
        if len(study.looks) == 2 and look is prediction.looks[0]:
            ways.append("no first look, as it could never end the study")
        found.append(
            Refusal(
                f"{prediction.name}: with {look.seeds} seeds p is never below {look.floor:.4g}; needed is {look.threshold:.4g}",
                "; or ".join(ways),
            )
        )
    return found


def _expects_too_little(study: StudyConfig) -> list[Refusal]:
    found = []
    for name in study.family_order:
        prediction = study.predictions[name]
        expect, least = getattr(prediction, "expect", None), getattr(prediction, "at_least", 0.0)
        if expect is not None and expect <= least:
            found.append(
                Refusal(
                    f"{name}: expects {expect:g} and asks for more than {least:g}: what is expected would not support it",
                    f"lower predictions.{name}.at_least, or expect more",
                )
            )
    return found


def _cannot_disagree(study: StudyConfig, lock: StudyLock) -> list[Refusal]:
    """Variants that are the same run, and a design without any check that the measure could have shown a difference."""
    found = []
    for name in study.family_order:
        prediction = study.predictions[name]
        of, versus = getattr(prediction, "of", None), getattr(prediction, "versus", None)
        if of is None or versus is None:
            continue
        pairs = [{cell.variant: cell.run for cell in lock.cells if cell.seed == seed} for seed in study.seeds.confirm]
        if any(runs.get(of) == runs.get(versus) for runs in pairs):
            found.append(
                Refusal(
                    f"{name}: {of} and {versus} are the same run under some seed: their difference is nought whatever is true",
                    "let them differ in `set`, or take a stream out of seeds.share for an A/A study",
                )
            )
    if not any(isinstance(check, PositiveControlCheck | HeadroomCheck) for check in study.checks):
        found.append(
            Refusal(
                "nothing would show if the measure could not have come out otherwise",
                "add a check of the kind positive_control (a change known to matter) or headroom (room below the best value)",
            )
        )
    return found


def _at_the_ceiling(study: StudyConfig, tuning: Sequence[Cell]) -> list[Refusal]:
    """Headroom checks with a number as bound that already fail on the tuning seeds."""
    from picolm.study.measures import measure_run

    found = []
    for check in study.checks:
        if not isinstance(check, HeadroomCheck) or isinstance(check.bound, str):
            continue
        values: dict[str, list[float]] = {}
        for cell in tuning:
            value = measure_run(study, cell, [check.measure]).reduced[check.measure].value if cell.status == "complete" else None
            if value is not None:
                values.setdefault(cell.variant, []).append(value)
        gaps = {variant: abs(sum(them) / len(them) - check.bound) for variant, them in values.items()}
        if gaps and min(gaps.values()) < check.min_gap:
            variant = min(gaps, key=lambda name: gaps[name])
            found.append(
                Refusal(
                    f"{check.measure}: on the tuning seeds {variant} is {gaps[variant]:.3g} from the best: no room to differ",
                    "shorter runs, a harder measure, or smaller models",
                )
            )
    return found


def _unequal_budgets(study: StudyConfig, lock: StudyLock) -> list[Refusal]:
    """Numbers that must be equal between variants and cannot be, by the configurations alone."""
    keys = {"steps": ("training.max_steps",), "tokens": ("training.max_steps", "data.dataloader.batch_size")}
    found = []
    for fact in study.budget.parity:
        products = {}
        for name, variant in lock.variants.items():
            product = 1
            for key in keys.get(fact, ()):
                product *= int(variant.config[key])
            products[name] = product
        if len(set(products.values())) > 1:
            shown = ", ".join(f"{name} {value:,}" for name, value in products.items())
            found.append(
                Refusal(
                    f"budget.parity asks for equal {fact}, and the variants have {shown}",
                    "set budget.value, or take it out of budget.parity",
                )
            )
    return found
