"""From the evidence on one prediction to its entry in the judgement: estimates, tests, what one seed less says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from picolm.study.config import StudyConfig
from picolm.study.judgement import Interval, LeftOut, Planning, PredictionJudgement, Probability, SeedEffect, Tests, Verdict
from picolm.study.predictions.contract import Evidence, PowerModel, Sides, kind_of
from picolm.study.predictions.pairs import label_of
from picolm.study.spec_predictions import PredictionConfig, measures_of, variants_of
from picolm.study.statistics import paired, power
from picolm.study.verdict import Decision, Refutation, is_fragile


@dataclass(frozen=True)
class Context:
    """What all predictions of a study share."""

    study: StudyConfig
    confirmatory: bool
    valid: bool
    outstanding: tuple[str, ...]
    """Checks that have nothing to look at yet."""
    looks: tuple[tuple[int, ...], ...]
    """Seeds of each look that was reached."""
    noise: Mapping[str, float]
    """Measure -> standard deviation over A/A runs."""

    def threshold(self, decision: Decision) -> float:
        """What p must not exceed: at the look that decided, or at the last one reached."""
        index = decision.look if decision.look is not None else max(0, len(self.looks) - 1)
        return self.study.spend[index]


def judge_prediction(
    context: Context, name: str, prediction: PredictionConfig, evidence: Evidence, decision: Decision
) -> PredictionJudgement:
    """One prediction of the judgement."""
    study = context.study
    in_family = name in study.family_order
    measure = measures_of(prediction)[-1][1]
    planning = _planning(context, evidence)
    ruling = _rule(context, evidence, decision, planning, in_family)
    tested = context.confirmatory and in_family and ruling.verdict != "invalid" and not context.outstanding
    return PredictionJudgement(
        name=name,
        kind=prediction.kind,
        sentence=kind_of(prediction).sentence(prediction, study),
        note=prediction.note,
        primary=name in study.primary,
        in_family=in_family,
        of=getattr(prediction, "of", ""),
        versus=getattr(prediction, "versus", "") or "",
        variants=tuple(dict.fromkeys(variant for _, variant in variants_of(prediction))),
        measure=measure,
        label=label_of(study, measure),
        direction=getattr(prediction, "direction", ""),
        scale=evidence.scale,
        at_least=evidence.at_least,
        margin=evidence.margin,
        verdict=ruling.verdict,
        sub_label=ruling.sub_label,
        fragile=ruling.fragile,
        reason=ruling.reason,
        tests=_tests(context, evidence, decision) if tested else Tests(),
        look=len(context.looks[_look_index(context, decision)]) if tested and context.looks else None,
        leave_one_out=_left_out(evidence, ruling.verdict, tested),
        noise_sd=context.noise.get(measure),
        planning=planning if context.confirmatory and in_family else Planning(),
        curve=evidence.curve
        if tested or evidence.curve is None
        else evidence.curve.model_copy(update={"p": (), "first_separation": None}),
        facts=tuple(fact for fact in evidence.facts if tested or not fact.is_test),
        **_estimates(context, evidence),
    )


def _look_index(context: Context, decision: Decision) -> int:
    return decision.look if decision.look is not None else len(context.looks) - 1


def _finite(evidence: Evidence) -> np.ndarray:
    values = evidence.values
    return values[np.isfinite(values)]


def _estimates(context: Context, evidence: Evidence) -> dict[str, Any]:
    """Effects by seed and what sums them up; a diverged pair is drawn at the furthest effect seen and left out of means."""
    values, finite = evidence.values, _finite(evidence)
    furthest = float(np.abs(finite).max()) if finite.size else 0.0
    effects = tuple(
        SeedEffect(
            seed=effect.seed,
            effect=effect.value if math.isfinite(effect.value) else math.copysign(furthest, effect.value),
            of=_number(effect.of),
            versus=_number(effect.versus),
            note=effect.note,
        )
        for effect in evidence.effects
    )
    if not finite.size:
        return {"effects": effects}
    whole = evidence.interval and finite.size == values.size
    return {
        "effects": effects,
        "mean": float(finite.mean()),
        "median": float(np.median(np.array([effect.effect for effect in effects]))),
        "sd": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "intervals": (*(_t_intervals(context.study.alpha, finite) if whole else ()), *evidence.intervals),
        "effect_size": paired.standardised_effect(finite) if whole else None,
        "probability_of_improvement": _probability(values) if evidence.exact is None else None,
        "outliers": tuple(evidence.effects[index].seed for index in paired.outliers(values)) if whole else (),
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _t_intervals(alpha: float, values: np.ndarray) -> tuple[Interval, ...]:
    """At 1 - alpha to look at, and at 1 - 2 alpha, whose ends go with the one-sided tests."""
    if values.size < 2:
        return ()
    bounds = [(level, paired.t_interval(values, level)) for level in (1 - alpha, 1 - 2 * alpha)]
    return tuple(Interval(low=found.low, high=found.high, level=round(level, 10), method="paired t") for level, found in bounds)


def _probability(values: np.ndarray) -> Probability:
    found = paired.probability_of_improvement(values)
    interval = Interval(low=found.low, high=found.high, level=0.95, method="Clopper-Pearson")
    return Probability(value=found.value, interval=interval, wins=found.wins, n=found.n)


def _tests(context: Context, evidence: Evidence, decision: Decision) -> Tests:
    sides = evidence.sides
    if sides is None:
        return Tests(method=evidence.method)
    return Tests(
        p_supported=sides.supported if decision.reached else None,
        p_refuted=sides.refuted if decision.reached else None,
        p_supported_adjusted=decision.supported_adjusted,
        p_refuted_adjusted=decision.refuted_adjusted,
        p_floor=evidence.floor,
        threshold=context.threshold(decision) if context.looks else None,
        method=evidence.method,
    )


def _sides_without_each(evidence: Evidence) -> list[Sides]:
    count = len(evidence.effects)
    if evidence.test is None or count < 2:
        return []
    return [evidence.test(np.delete(np.arange(count), index)) for index in range(count)]


def _left_out(evidence: Evidence, verdict: Verdict, tested: bool) -> tuple[LeftOut, ...]:
    """Means and p values without each seed: of the statement that was decided, of `supported` where none was."""
    found = []
    for index, sides in enumerate(_sides_without_each(evidence)):
        rest = np.delete(evidence.values, index)
        rest = rest[np.isfinite(rest)]
        p = sides.refuted if verdict == "refuted" else sides.supported
        mean = float(rest.mean()) if rest.size else 0.0
        found.append(LeftOut(seed=evidence.effects[index].seed, mean=mean, p=p if tested else None))
    return tuple(found)


def _planning(context: Context, evidence: Evidence) -> Planning:
    """From the declared effect and the upper limit of the deviation, at the threshold of the last look."""
    model, finite, study = evidence.power_model, _finite(evidence), context.study
    if model is None or finite.size < 2:
        return Planning()
    upper = power.sd_upper_limit(float(finite.std(ddof=1)), finite.size)
    alpha, declared = study.spend[-1], len(study.seeds.confirm) + len(study.seeds.reserve)
    needed, smallest = model.needed(upper, alpha), model.smallest(upper, finite.size, alpha)
    fits = None if model.expect is None else needed is not None and needed <= declared
    return Planning(
        expect=model.expect,
        sd_upper=upper,
        power=model.power(upper, finite.size, alpha),
        minimum_detectable=smallest if math.isfinite(smallest) else None,
        seeds_needed=needed,
        fits_budget=fits,
        sentence=_planning_sentence(model, needed, declared),
    )


def _planning_sentence(model: PowerModel, needed: int | None, declared: int) -> str:
    if model.expect is None:
        return "no expected effect was declared, so the number of seeds needed is unknown"
    if needed is None:
        return f"not resolvable: even 1,000 seeds would not {model.goal} four times in five"
    enough = "enough" if needed <= declared else "too few"
    return f"{needed} seeds {model.goal} four times in five; {declared} are declared, which is {enough}"


@dataclass(frozen=True)
class _Ruling:
    verdict: Verdict
    sub_label: str
    reason: str
    fragile: bool = False


def _rule(context: Context, evidence: Evidence, decision: Decision, planning: Planning, in_family: bool) -> _Ruling:
    """The verdict on one prediction and why."""
    if not context.confirmatory:
        return _Ruling("exploratory", "", "the study is exploratory: estimates only")
    if not context.valid:
        return _Ruling("invalid", "", "a check failed, so nothing is said about this prediction")
    if not in_family:
        return _Ruling("exploratory", "descriptive", "it is not in the family: it is described and not tested")
    if context.looks and context.outstanding:
        return _Ruling(
            "inconclusive", "checks outstanding", f"runs of a check have not ended yet: {', '.join(context.outstanding)}"
        )
    if decision.verdict is not None:
        return _decided(context, evidence, decision)
    if not context.looks:
        first, ended = context.study.looks[0], len(evidence.effects)
        return _Ruling("inconclusive", "before the first look", f"{ended} of the {first} seeds of the first look have ended")
    if not decision.reached and decision.supported_adjusted is None:
        return _Ruling("inconclusive", "not reached", "a prediction before it in the sequence was not supported")
    if evidence.sides is None:
        return _Ruling("inconclusive", "not testable", evidence.untestable)
    return _undecided(context, evidence, planning)


def _decided(context: Context, evidence: Evidence, decision: Decision) -> _Ruling:
    verdict = decision.verdict
    assert verdict is not None
    if evidence.sides is None:
        how = "it holds in every run" if verdict == "supported" else "it does not hold in every run"
        return _Ruling(verdict, "" if verdict == "supported" else evidence.refuted_word, how)
    threshold = context.threshold(decision)
    side = "supported" if verdict == "supported" else "refuted"
    adjusted = decision.supported_adjusted if verdict == "supported" else decision.refuted_adjusted
    without = [p for sides in _sides_without_each(evidence) if (p := getattr(sides, side)) is not None]
    floor = (paired.p_floor(len(evidence.effects) - 1) if evidence.floor is not None else 0.0) * evidence.sides_counted
    fragile = is_fragile(without, threshold, floor)
    compared = f"adjusted p = {adjusted:.4g} is at most {threshold:.4g}"
    if verdict == "supported":
        return _Ruling("supported", "fragile" if fragile else "", compared, fragile)
    refutation = Refutation(evidence.refuted_word, evidence.sides.reversed, evidence.sides.negligible, threshold)
    return _Ruling("refuted", refutation.label(), f"of the contrary, {compared}", fragile)


def _undecided(context: Context, evidence: Evidence, planning: Planning) -> _Ruling:
    threshold = context.study.spend[len(context.looks) - 1]
    if evidence.floor is not None and evidence.floor > threshold * (1 + 1e-9):
        word = f"with {len(evidence.effects)} seeds no outcome could reach {threshold:.4g}"
    else:
        word = "neither it nor its contrary is clear at this number of seeds"
    label = "not resolvable in budget" if planning.fits_budget is False else ""
    return _Ruling("inconclusive", label, f"{word}; {planning.sentence}" if planning.sentence else word)
