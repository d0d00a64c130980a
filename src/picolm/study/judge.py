"""A study's runs come in, its `Judgement` goes out: checks first, then every prediction at the declared looks. No torch.

What each prediction makes of the runs is in `predictions`, what follows from p values in `verdict`, what it is called in
`conclusion`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from picolm.study.checks import Material, noise_values, run_checks
from picolm.study.conclusion import conclusion_of
from picolm.study.config import StudyConfig
from picolm.study.estimates import Context, judge_prediction
from picolm.study.judgement import (
    CheckResult,
    Curve,
    Judgement,
    PredictionJudgement,
    RunOutcome,
    Seeds,
    Value,
    VariantSummary,
    Verdict,
)
from picolm.study.lock import StudyLock
from picolm.study.matrix import Cell
from picolm.study.measures import Measured, measured
from picolm.study.parity import parity_check, parity_rows
from picolm.study.predictions.contract import Evidence, kind_of
from picolm.study.spec_checks import NoiseFloorCheck
from picolm.study.verdict import EXIT_CODES, Claim, Decision, could_still_decide, decide, hypothesis_verdict

DRAWN_POINTS = 200
"""A curve for drawing has no more points than this."""


@dataclass(frozen=True)
class Look:
    """One declared look that has been reached."""

    seeds: tuple[int, ...]
    """Seeds it rests on: those of the first n declared that ended."""


def judge(
    study: StudyConfig,
    cells: Sequence[Cell],
    lock: StudyLock | None,
    *,
    tampering: Sequence[str] = (),
    deviations: Sequence[str] = (),
) -> Judgement:
    """What the runs say about the study.

    `cells`: the places that count, with their runs. `lock`: None if it was never locked: then the study is exploratory.
    `tampering`: sentences about what was changed after it was locked or had ended; any makes the study invalid.
    `deviations`: sentences about what is not as declared without being wrong; they are shown.
    """
    data = measured(study, cells)
    seeds = data.seeds()
    looks = reached_looks(data)
    material = Material(study, data, cells, seeds)
    rows = parity_rows(material)
    checks = [_missing_check(data), _tampering_check(tampering), parity_check(rows), *run_checks(material)]
    confirmatory = study.mode == "confirmatory" and lock is not None and lock.mode == "confirmatory"
    valid = all(check.passed is not False for check in checks)
    context = Context(
        study=study,
        confirmatory=confirmatory,
        valid=valid,
        outstanding=tuple(check.name for check in checks if check.pending),
        looks=tuple(look.seeds for look in looks),
        noise=_noise(material),
    )
    predictions = _judged(context, data, seeds, looks)
    primary = [found.verdict for found in predictions if found.primary]
    verdict = _verdict(confirmatory, valid, primary)
    outcomes = _outcomes(study, data)
    judgement = Judgement(
        study=study.id,
        mode="confirmatory" if confirmatory else "exploratory",
        statement=study.statement,
        rationale=study.rationale.model_dump(mode="json"),
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        conclusion="",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        lock_hash=None if lock is None else lock.hash,
        locked=None if lock is None else lock.created,
        first_run=_first_run(data),
        alpha=study.alpha,
        family_method=study.family.method,
        family_order=study.family_order,
        looks=study.looks,
        thresholds=study.spend,
        next_look=_next_look(study, context, predictions, looks),
        seeds=Seeds(
            tuning=study.seeds.tuning,
            confirm=study.seeds.confirm,
            reserve=study.seeds.reserve,
            used=looks[-1].seeds if looks else seeds,
        ),
        variants=_variants(study, lock, material),
        checks=tuple(checks),
        parity=tuple(rows),
        predictions=tuple(predictions),
        failures=tuple(outcomes),
        deviations=(*_deviations(study, lock), *deviations),
        values=tuple(_values(data)),
        curves=tuple(_curves(data)),
        versions={name: importlib.metadata.version(name) for name in ("picolm", "numpy", "scipy")},
    )
    return judgement.model_copy(update={"conclusion": conclusion_of(judgement)})


def reached_looks(data: Measured) -> list[Look]:
    """The declared looks all of whose runs have ended, or are missing within what the study allows."""
    study = data.study
    declared, ended = (*study.seeds.confirm, *study.seeds.reserve), data.seeds()
    found = []
    for count in study.looks:
        waiting = [seed for seed in declared[:count] if not data.ended(seed)]
        excused = study.failures.crashed == "count_as_missing" and all(_crashed(data, seed) for seed in waiting)
        if waiting and not (excused and len(waiting) <= study.failures.max_missing):
            break
        found.append(Look(tuple(seed for seed in declared[:count] if seed in ended)))
    return found


def _crashed(data: Measured, seed: int) -> bool:
    """Whether what is missing of a seed has crashed, so that nothing is still to come."""
    runs = [data.runs.get((variant, seed)) for variant in data.study.variants]
    return all(run is not None and run.cell.status != "missing" for run in runs)


def _judged(context: Context, data: Measured, seeds: tuple[int, ...], looks: list[Look]) -> list[PredictionJudgement]:
    study = context.study
    at_looks = [_evidence(study, data, look.seeds) for look in looks]
    everything = at_looks[-1] if looks and looks[-1].seeds == seeds else _evidence(study, data, seeds)
    claims = [{name: claim_of(evidence[name]) for name in study.family_order} for evidence in at_looks]
    decisions = decide(claims, study.spend, study.family_order, study.family.method)
    found = []
    for name, prediction in study.predictions.items():
        decision = decisions.get(name, Decision())
        index = decision.look if decision.look is not None else len(looks) - 1
        in_family = name in study.family_order
        evidence = at_looks[index][name] if looks and in_family and context.confirmatory else everything[name]
        found.append(judge_prediction(context, name, prediction, evidence, decision))
    return found


def _evidence(study: StudyConfig, data: Measured, seeds: tuple[int, ...]) -> dict[str, Evidence]:
    return {name: kind_of(prediction).evidence(prediction, data, seeds) for name, prediction in study.predictions.items()}


def claim_of(evidence: Evidence) -> Claim:
    """What a look passes on to the rules of the verdict."""
    if evidence.sides is None:
        return Claim(exact=evidence.exact)
    return Claim(evidence.sides.supported, evidence.sides.refuted)


def _verdict(confirmatory: bool, valid: bool, primary: Sequence[Verdict]) -> Verdict:
    if not confirmatory:
        return "exploratory"
    return hypothesis_verdict(primary) if valid else "invalid"


def _next_look(study: StudyConfig, context: Context, predictions: Sequence[PredictionJudgement], looks: list[Look]) -> int | None:
    """The number of seeds of the next look, if something in the family is undecided that it could still decide."""
    if not context.valid or not context.confirmatory or (len(looks) == len(study.looks) and not context.outstanding):
        return None
    if not looks or context.outstanding:
        return study.looks[max(0, len(looks) - 1)]
    more = study.looks[len(looks)] - study.looks[len(looks) - 1]
    threshold = study.spend[len(looks)]
    for found in predictions:
        if not found.in_family or found.verdict != "inconclusive":
            continue
        claim = Claim(found.tests.p_supported, found.tests.p_refuted)
        if study.stopping.futility == "none" or claim == Claim() or could_still_decide(claim, threshold, more):
            return study.looks[len(looks)]
    return None


def _missing_check(data: Measured) -> CheckResult:
    """Whether more seeds are lost than the study allows, and whether a diverged run makes it invalid by its own rule."""
    study = data.study
    declared = study.seeds.confirm
    crashed = [seed for seed in declared if not data.ended(seed) and _crashed(data, seed)]
    diverged = [seed for seed in (*declared, *study.seeds.reserve) if data.diverged(seed)]
    lost = crashed if study.failures.crashed == "count_as_missing" else []
    problems = []
    if len(lost) > study.failures.max_missing:
        problems.append(f"{len(lost)} seeds are missing, {study.failures.max_missing} are allowed: {_listed(lost)}")
    if diverged and study.failures.diverged == "invalid":
        problems.append(f"runs of the seeds {_listed(diverged)} diverged, which makes this study invalid by its own rule")
    waiting = [seed for seed in declared if not data.ended(seed) and seed not in lost]
    passed = False if problems else (None if waiting else True)
    sentence = "; ".join(problems) or (
        f"{len(declared) - len(waiting)} of {len(declared)} confirmation seeds have ended in every variant"
    )
    return CheckResult(name="missing runs", kind="missing", passed=passed, sentence=sentence)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _tampering_check(tampering: Sequence[str]) -> CheckResult:
    more = f"; and {len(tampering) - 1} more" if len(tampering) > 1 else ""
    sentence = f"{tampering[0]}{more}" if tampering else "nothing was changed after it was locked or had ended"
    return CheckResult(name="tampering", kind="tamper", passed=not tampering, sentence=sentence, details=tuple(tampering))


def _noise(material: Material) -> dict[str, float]:
    """Measure -> standard deviation over A/A runs, where a check looks at it."""
    results = {}
    for check in material.study.checks:
        if isinstance(check, NoiseFloorCheck):
            values, _ = noise_values(check, material)
            if len(values) > 1:
                mean = sum(values) / len(values)
                results[check.measure] = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return results


def _first_run(data: Measured) -> str | None:
    created = [run.cell.run.identity().get("created") for run in data.runs.values() if run.cell.run.identity_file.is_file()]
    return min((str(moment) for moment in created if moment), default=None)


def _variants(study: StudyConfig, lock: StudyLock | None, material: Material) -> tuple[VariantSummary, ...]:
    found = []
    for name, variant in study.variants.items():
        runs = material.runs((name,))
        parameters = runs[0].files.run.identity().get("model", {}).get("parameters") if runs else None
        locked = None if lock is None else {key: pair[1] for key, pair in lock.variants[name].changes.items()}
        changes = dict(variant.set) if locked is None else locked
        picked = {cell.value for cell in material.cells if cell.variant == name and cell.phase == "confirm"} - {None}
        if study.tuning is not None and len(picked) == 1:
            changes[study.tuning.key] = picked.pop()
        found.append(
            VariantSummary(
                name=name, role=variant.role, label=variant.label or name, changes=changes, runs=len(runs), parameters=parameters
            )
        )
    return tuple(found)


_COUNTED: dict[str, str] = {
    "worst_rank": "counts as the worst of all",
    "drop_seed": "its seed is left out in every variant",
    "invalid": "makes the study invalid",
    "rerun_same_seed": "to be run again",
    "count_as_missing": "its seed is missing",
}
"""How each rule of `failures` counts a run that did not end well."""


def _outcomes(study: StudyConfig, data: Measured) -> list[RunOutcome]:
    """Runs that diverged or crashed; what has not been run yet is no failure."""
    rules = {"diverged": study.failures.diverged, "crashed": study.failures.crashed}
    return [
        RunOutcome(
            variant=variant,
            seed=seed,
            phase=run.cell.phase,
            outcome=run.cell.status,
            counted_as=_COUNTED[rules[run.cell.status]],
            note=run.cell.reason,
        )
        for (variant, seed), run in data.runs.items()
        if run.cell.status in ("diverged", "crashed")
    ]


def _deviations(study: StudyConfig, lock: StudyLock | None) -> tuple[str, ...]:
    found = []
    if study.mode == "confirmatory" and lock is None:
        found.append("the study was never locked, so its predictions cannot be told from afterthoughts")
    if lock is not None and lock.mode_reason:
        found.append(lock.mode_reason)
    if lock is not None and lock.version > 1:
        found.append(f"this is version {lock.version} of the lock; what was declared before is in `locks`")
    return tuple(found)


def _values(data: Measured) -> list[Value]:
    found = []
    for (variant, seed), run in data.runs.items():
        for measure, reduced in run.reduced.items():
            finite = reduced.value is not None and abs(reduced.value) != float("inf")
            found.append(
                Value(
                    measure=measure,
                    variant=variant,
                    seed=seed,
                    phase=run.cell.phase,
                    value=reduced.value if finite else None,
                    censored=reduced.censored,
                    note=reduced.note,
                )
            )
    return found


def _curves(data: Measured) -> list[Curve]:
    """Every series once, thinned evenly for drawing."""
    study = data.study
    drawn: dict[tuple[str, str, str], str] = {}
    for name, measure in study.measures.items():
        drawn.setdefault((measure.series, repr(sorted(measure.where.items())), measure.x), name)
    found = []
    for (variant, seed), run in data.runs.items():
        for name in drawn.values():
            curve = run.reduced[name].curve if name in run.reduced else None
            if curve is None or curve.x.size < 2:
                continue
            stride = -(-curve.x.size // DRAWN_POINTS)
            kept = sorted({*range(0, curve.x.size, stride), curve.x.size - 1})
            found.append(
                Curve(
                    measure=name,
                    variant=variant,
                    seed=seed,
                    phase=run.cell.phase,
                    x_name=study.measures[name].x,
                    x=tuple(curve.x[kept].tolist()),
                    y=tuple(curve.y[kept].tolist()),
                )
            )
    return found
