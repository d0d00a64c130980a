"""What was declared: variants by what they change, seeds, levels, the lock and its time, and what it would take to know more."""

from __future__ import annotations

from picolm.report.panels.contract import Block, Command, Facts, Missing, Panel, Remark, Table
from picolm.report.study import wording
from picolm.report.words import quantity, told
from picolm.study.judgement import Judgement, PredictionJudgement

PLANNING = """
Seeds are counted for 80 % power at the effect that was declared, never at the one that was observed, which would flatter
itself. The standard deviation of the differences is taken at its upper 80 % limit, since few seeds know it badly. The smallest
effect found is what these seeds detect four times in five.
"""

DESIGN = """
The lock resolves every variant, and hashes configurations, data, tokenizer, code and versions, before the first run that counts.
Each run carries its hash. A changed study is a new version; data seen before the lock make the study exploratory.
"""


def variants(judgement: Judgement) -> Panel:
    """Only the settings that differ, variant by variant."""
    shown = judgement.variants
    keys = list(dict.fromkeys(key for variant in shown for key in variant.changes))
    rows = [
        ("role", *(variant.role for variant in shown)),
        ("finished runs", *(str(variant.runs) for variant in shown)),
        ("parameters", *(_parameters(variant.parameters) for variant in shown)),
        *((key, *(told(variant.changes[key]) if key in variant.changes else "as the base" for variant in shown)) for key in keys),
    ]
    names = [variant.label if variant.label == variant.name else f"{variant.label} ({variant.name})" for variant in shown]
    blocks: list[Block] = [Table(("setting", *names), tuple(rows), "Variants and what they change", open=True)]
    if not keys:
        blocks.append(Remark("No variant changes any setting: they differ in nothing but chance."))
    sentence = "What is compared: settings that are not listed are the same in all variants."
    return Panel("Variants", sentence, "Values under `as the base` are those of the base configuration.", tuple(blocks))


def _parameters(count: int | None) -> str:
    return "not known" if count is None else quantity(float(count)).strip()


def planning(judgement: Judgement) -> Panel:
    """What these seeds could find, how many it would take, and the command that makes them."""
    planned = [found for found in judgement.predictions if found.planning.sentence]
    header = (
        "prediction",
        "declared effect",
        "power for it",
        "smallest effect found",
        "seeds needed",
        "enough declared",
        "in words",
    )
    rows = tuple(_planning_row(found) for found in planned)
    blocks: list[Block] = [Table(header, rows, "Seeds still needed", open=True)] if rows else []
    if judgement.next_look is not None:
        blocks.append(Remark(f"The next declared look is at {judgement.next_look} seeds."))
    if judgement.extend_command:
        blocks.append(Command(judgement.extend_command, "Makes the runs that are still to be made; it goes on where it stopped:"))
    if not blocks:
        blocks.append(Missing("Nothing is left to run, and no prediction declared an effect to plan for."))
    return Panel(
        "What it would take", "How much these seeds can see, and what would settle what is open.", PLANNING, tuple(blocks)
    )


def _planning_row(found: PredictionJudgement) -> tuple[str, ...]:
    plan = found.planning
    fits = {True: "yes", False: "no", None: ""}[plan.fits_budget]
    return (
        found.name,
        _expected(found),
        "" if plan.power is None or plan.expect is None else f"{plan.power:.0%}",
        "" if plan.minimum_detectable is None else wording.effect(found, plan.minimum_detectable),
        "" if plan.seeds_needed is None else str(plan.seeds_needed),
        fits,
        plan.sentence,
    )


def _expected(found: PredictionJudgement) -> str:
    """The effect that was declared; what is said to be equal is expected not to differ."""
    if found.planning.expect is None:
        return "none"
    return "no difference" if found.planning.expect == 0 else wording.effect(found, found.planning.expect)


def design(judgement: Judgement) -> Panel:
    """Lock, seeds, levels, source and versions."""
    seeds = judgement.seeds
    looks = zip(judgement.looks, judgement.thresholds, strict=False)
    facts = [
        ("mode", judgement.mode),
        ("lock", judgement.lock_hash or "none"),
        ("locked", wording.moment(judgement.locked)),
        ("first run that counts", wording.moment(judgement.first_run)),
        ("order of the two", ": ".join(wording.lock_before_runs(judgement))),
        ("judged", wording.moment(judgement.made)),
        ("accepted share of false claims", wording.number(judgement.alpha)),
        ("family", f"{judgement.family_method.replace('_', ' ')}: {', '.join(judgement.family_order) or 'none'}"),
        ("looks", ", ".join(f"{count} seeds at p ≤ {level:.4g}" for count, level in looks)),
        ("seeds the verdict rests on", _listed(seeds.used)),
        ("confirmation seeds", _listed(seeds.confirm)),
        ("reserve seeds", _listed(seeds.reserve)),
        ("tuning seeds", _listed(seeds.tuning)),
    ]
    rationale = tuple((str(name), told(value)) for name, value in judgement.rationale.items() if value)
    versions = tuple((name, version) for name, version in judgement.versions.items())
    blocks: list[Block] = [Facts(tuple(facts))]
    blocks += [Facts(rationale, "Why it was made")] if rationale else []
    blocks += [Facts(versions, "Judged with")] if versions else []
    return Panel("Design", "What was fixed beforehand, and when.", DESIGN, tuple(blocks))


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds)) or "none"
