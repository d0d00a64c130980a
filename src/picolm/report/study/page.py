"""The report of a study: one self-contained page, the same as Markdown, the judgement as JSON, and figures on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from picolm.records import durable
from picolm.records.studydir import StudyDirectory
from picolm.report.figures import write_figures
from picolm.report.headline import Headline
from picolm.report.panels.contract import Panel
from picolm.report.shell import Lead, Top, render_page
from picolm.report.spec import quick_charts
from picolm.report.study import design, evidence, wording
from picolm.report.study.markdown import as_markdown
from picolm.report.study.predictions import overview, prediction_panel
from picolm.report.visible import cleaned
from picolm.study.judgement import Judgement, write_judgement


def write_study_report(
    study_dir: StudyDirectory,
    judgement: Judgement,
    out: Path | None = None,
    *,
    figures: Path | None = None,
    style: str = "paper",
) -> Path:
    """Write the page of a judged study; its path. Beside it lie the same as Markdown and the judgement as JSON.

    `out`: the page; None: the place that `records` has for it. `figures`: folder for every chart as SVG, PDF, PNG, CSV and
    JSON, in the size and type of `style`.
    """
    shown = visible_judgement(judgement)
    with quick_charts():
        panels = study_panels(shown)
    page = study_dir.report_page if out is None else out
    durable.write_text(page, render_page(study_top(shown), panels))
    durable.write_text(page.with_suffix(".md"), as_markdown(study_top(shown), panels))
    if page.parent.resolve() != study_dir.judgement_file.parent.resolve():
        write_judgement(page.with_suffix(".json"), judgement)
    if figures is not None:
        write_figures(panels, figures, style=style)
    return page


def visible_judgement(judgement: Judgement) -> Judgement:
    """The judgement with every text in it made visible: what may be shown."""
    return Judgement.model_validate(cleaned(judgement.model_dump(mode="json")))


def study_panels(judgement: Judgement) -> list[Panel]:
    """The panels of the page, top to bottom: what came out, what it rests on, what was fixed beforehand."""
    return [
        overview(judgement),
        *(prediction_panel(found, judgement) for found in judgement.predictions),
        evidence.curves(judgement),
        evidence.checks(judgement),
        evidence.parity(judgement),
        design.variants(judgement),
        evidence.failures(judgement),
        design.planning(judgement),
        design.design(judgement),
    ]


def study_top(judgement: Judgement) -> Top:
    """Title, verdict, the paragraph that says it all, and a few numbers."""
    return Top(
        title=judgement.study,
        subtitle=judgement.statement,
        kind="Pico study",
        lead=Lead(judgement.verdict, judgement.conclusion),
        headlines=headlines(judgement),
        notices=notices(judgement),
    )


def headlines(judgement: Judgement) -> Sequence[Headline]:
    """Lock and its time, seeds, the first primary prediction, how small a p could have been, checks."""
    seeds = judgement.seeds
    declared = len(seeds.confirm) + len(seeds.reserve)
    lock = f"lock {judgement.lock_hash[:12]}" if judgement.lock_hash else "no lock"
    found = [
        Headline(lock, *wording.lock_before_runs(judgement)),
        Headline("seeds", f"{len(seeds.used)} of {declared}", "in every variant"),
    ]
    primary = next((one for one in judgement.predictions if one.primary), None)
    if primary is not None:
        interval = primary.intervals[0] if primary.intervals else None
        told = f"{wording.level(interval)}: {wording.between(primary, interval)}" if interval else ""
        found.append(Headline(f"effect, {primary.name}", wording.effect(primary, primary.mean), told))
        _, adjusted = wording.deciding_p(primary)
        if adjusted is not None:
            limit = f"at most {wording.number(primary.tests.threshold)} needed; floor {wording.number(primary.tests.p_floor)}"
            found.append(Headline(f"adjusted p, {primary.name}", wording.p_value(adjusted), limit))
    failed, count = [check.passed for check in judgement.checks].count(False), len(judgement.checks)
    found.append(
        Headline("checks", f"{failed} failed" if failed else f"{count} of {count}", f"of {count}" if failed else "passed")
    )
    return found


def notices(judgement: Judgement) -> Sequence[str]:
    """What a reader must not overlook: checks that failed, deviations, verdicts that rest on single seeds."""
    failed = [f"{check.name}: {check.sentence}" for check in judgement.checks if check.passed is False]
    fragile = [f"{found.name} rests on single seeds" for found in judgement.predictions if found.fragile]
    return [*failed, *judgement.deviations, *fragile]
