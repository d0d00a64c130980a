"""One panel per prediction, and a table of all: what each seed says, the interval of the mean, the p values, the verdict."""

from __future__ import annotations

import math
from typing import Any, get_args

import pandas

from picolm.report import charts
from picolm.report.panels.contract import Badge, Block, Cell, Facts, Figure, Figures, Missing, Panel, Remark, Table
from picolm.report.study import wording
from picolm.study.judgement import CurveBand, Judgement, PredictionJudgement
from picolm.study.spec_predictions import PredictionConfig

OVERVIEW = """
A verdict is one of five words. Supported: the adjusted p of "the effect is at most the threshold" is at or below the level of
the look. Refuted: the same for "the effect is at least the threshold"; reversed, negligible or too small say in which way.
Inconclusive: neither; it does not mean that there is no difference. Invalid: a check failed, so nothing is said. Exploratory:
estimates only, no p values.

The hypothesis is supported if all primary predictions are, refuted if any of them is, otherwise inconclusive. Seeds are the unit
of replication; steps and test items never are. The p floor is the smallest p that so many seeds can give. The sign-flip test
assumes that under the null hypothesis differences are symmetric about the threshold.
"""

ESTIMATES = """
Effects are turned so that positive is as predicted, one per seed, from runs that share the seed. A hollow dot marks a pair about
which something is special, such as a run that diverged or never reached the level. The shaded stretch is where the prediction is
true; a dashed line marks the declared threshold or margin. The interval of the mean is that of the paired t distribution, the
second one (at twice the error) has the ends that go with one-sided tests. One left out: the range of means without one of the
seeds. Noise: plus and minus one standard deviation of the measure between runs of one variant that differ in nothing but the
seed, where a check has measured it.
"""


def overview(judgement: Judgement) -> Panel:
    """All predictions in one table, in the order in which they are tested."""
    header = ("prediction", "says", "verdict", "effect (interval)", "p", "adjusted p", "must be at most", "p floor", "seeds")
    rows = tuple(_row(found) for found in judgement.predictions)
    adjusted = {
        "fixed_sequence": "one after the other, each only if those before it are supported",
        "holm": "all at once, by Holm",
    }
    family = ", ".join(judgement.family_order) or "none"
    blocks: list[Block] = [Table(header, rows, "All predictions", open=True)] if rows else [Missing("Nothing was predicted.")]
    blocks.append(Remark(f"Tested {adjusted.get(judgement.family_method, judgement.family_method)}: {family}."))
    sentence = "What was predicted before the runs, what came out, and how sure one may be."
    return Panel("Predictions", sentence, OVERVIEW, tuple(blocks))


def _row(found: PredictionJudgement) -> tuple[Cell, ...]:
    raw, adjusted = wording.deciding_p(found)
    name = f"{found.name} (primary)" if found.primary else found.name
    verdict = Badge(wording.verdict_word(found), wording.sub_label(found))
    return (
        *(name, found.sentence, verdict, wording.effect_with_interval(found)),
        *(wording.p_value(raw), wording.p_value(adjusted)),
        *(wording.number(found.tests.threshold), wording.number(found.tests.p_floor), str(len(found.effects))),
    )


def prediction_panel(found: PredictionJudgement, judgement: Judgement) -> Panel:
    """Everything about one prediction."""
    label = f"{wording.sub_label(found)}: " if wording.sub_label(found) else ""
    blocks: list[Block] = [Remark(f"{_capital(label + found.reason)}.")]
    if found.note:
        blocks.append(Remark(f"Said beforehand: {found.note}"))
    figures = prediction_figures(found, judgement)
    blocks.append(Figures(figures) if figures else Missing("There is no pair of finished runs yet, so nothing can be drawn."))
    blocks += [Facts(_facts(found), "In numbers"), *_seed_table(found)]
    definition = "\n\n".join([_kinds().get(found.kind, ""), ESTIMATES])
    title = f"{found.name}: {found.kind.replace('_', ' ')}"
    return Panel(title, f"{_capital(found.sentence)}.", definition, tuple(blocks), verdict=wording.verdict_word(found))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _kinds() -> dict[str, str]:
    """Kind of prediction -> its sentence in the schema."""
    members = [get_args(member) for member in get_args(get_args(PredictionConfig)[0])]
    return {tag.tag: " ".join((model.__doc__ or "").split()) for model, tag in members}


def prediction_figures(found: PredictionJudgement, judgement: Judgement) -> tuple[Figure, ...]:
    """The effects by seed with intervals, threshold and margin; the pairs; the difference of curves, where it is about curves."""
    figures = []
    if found.effects:
        figures.append(_effects_figure(found))
        figures += _pairs_figure(found, judgement)
    if found.curve is not None and len(found.curve.x) > 1:
        figures.append(_curve_figure(found, found.curve))
    return tuple(figures)


def _effects_figure(found: PredictionJudgement) -> Figure:
    effects = pandas.DataFrame([{"seed": one.seed, "effect": one.effect, "note": one.note} for one in found.effects])
    spans = pandas.DataFrame(_spans(found), columns=["name", "low", "high", "mean", "words"])
    axis = _axis_title(found)
    chart = charts.seed_effects(
        effects,
        spans,
        title=f"{found.name}: {found.label}",
        axis=axis,
        holds=_holds(found),
        thresholds=_thresholds(found),
        threshold_name=_threshold_name(found),
        factors=wording.is_factor(found),
    )
    rows = len(effects) + len(spans)
    caption = f"{wording.effect_with_interval(found)} over {len(effects)} seeds." if found.mean is not None else ""
    if any(one.note for one in found.effects):
        caption += " Hollow dots: see the notes in the table below."
    if found.outliers:
        caption += f" Far from the others: {', '.join(f'seed {seed}' for seed in found.outliers)}."
    numbers = pandas.concat([effects.assign(name="seed"), spans], ignore_index=True)
    title = f"{found.name}: effect by seed"
    return Figure(f"{found.name}-effects", title, chart, numbers, caption, size="medium", height=40 + 24 * rows)


def _axis_title(found: PredictionJudgement) -> str:
    what = _SCALES.get(found.scale, f"{found.scale} of")
    reading = f"{found.of} against {found.versus}" if _is_two_sided(found) else "right: as predicted"
    return f"{what} {found.label}; {reading}"


_SCALES = {
    "log ratio": "ratio of",
    "difference": "difference in",
    "distance": "mean distance in",
    "exact": "room to the bound of",
}


def _is_two_sided(found: PredictionJudgement) -> bool:
    """Whether effects are not turned, since both sides count alike."""
    return found.kind == "equivalence" or found.direction == "either"


def _spans(found: PredictionJudgement) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for interval in found.intervals:
        words = f"{wording.level(interval)} interval of the mean, {interval.method}"
        name = f"mean, {wording.level(interval)}" + ("" if interval.method == "paired t" else f", {interval.method}")
        rows.append({"name": name, "low": interval.low, "high": interval.high, "mean": found.mean, "words": words})
    if not found.intervals and found.mean is not None:
        rows.append({"name": "mean", "low": found.mean, "high": found.mean, "mean": found.mean, "words": "mean over seeds"})
    if len(found.leave_one_out) > 1:
        means = [one.mean for one in found.leave_one_out]
        words = "range of the means without one of the seeds"
        rows.append({"name": "one left out", "low": min(means), "high": max(means), "mean": None, "words": words})
    if found.noise_sd is not None and found.scale == "difference":
        words = f"standard deviation between runs that differ in the seed alone: {found.noise_sd:.3g}"
        rows.append({"name": "noise (A/A)", "low": -found.noise_sd, "high": found.noise_sd, "mean": None, "words": words})
    return rows


def _holds(found: PredictionJudgement) -> list[charts.Span]:
    """Where on the axis the prediction is true."""
    if found.kind == "equivalence" and found.margin is not None:
        return [charts.Span(-found.margin, found.margin)]
    if found.direction == "either" and found.at_least == 0:
        return []
    if found.direction == "either":
        return [charts.Span(None, -found.at_least), charts.Span(found.at_least, None)]
    return [charts.Span(found.at_least, None)]


def _threshold_name(found: PredictionJudgement) -> str:
    word = "margin" if found.margin is not None else "at least"
    if _is_two_sided(found) and not wording.is_factor(found):
        return f"{word} {abs(found.at_least):.3g}"
    return f"{word} {wording.effect(found, found.at_least)}"


def _thresholds(found: PredictionJudgement) -> tuple[float, ...]:
    """The places on the axis between which, or beyond which, the prediction is true."""
    if found.scale == "exact":
        return ()
    return (-abs(found.at_least), abs(found.at_least)) if _is_two_sided(found) else (found.at_least,)


def _pairs_figure(found: PredictionJudgement, judgement: Judgement) -> list[Figure]:
    order = [found.versus, found.of] if found.of and found.versus else list(found.variants)
    used = {one.seed: one.note for one in found.effects}
    rows = [
        {
            "variant": value.variant,
            "seed": value.seed,
            "value": value.value,
            "note": value.note or used.get(value.seed, ""),
        }
        for value in judgement.values
        if value.measure == found.measure and value.variant in order and value.seed in used and value.phase != "control"
    ]
    frame = pandas.DataFrame(rows, columns=["variant", "seed", "value", "note"]).dropna(subset=["value"])
    if frame.empty or len(order) < 2:
        return []
    log = wording.is_factor(found) and bool((frame["value"] > 0).all())
    names = sorted(variant.name for variant in judgement.variants)
    chart = charts.paired_seeds(frame, title=found.label, order=order, colors=names, logarithmic=log)
    lines = f"Lines join runs of the same seed; bars are means of {frame['seed'].nunique()} seeds."
    return [Figure(f"{found.name}-pairs", _capital(found.label), chart, frame, lines, height=280)]


def _curve_figure(found: PredictionJudgement, band: CurveBand) -> Figure:
    frame = along(band.x_name, pandas.DataFrame({"x": band.x, "mean": band.mean, "low": band.low, "high": band.high}))
    apart = band.first_separation
    if apart is not None and band.x_name == "log_tokens":
        apart = math.exp(apart)
    chart = charts.curve_difference(
        frame, title=found.label, across=axis_name(band.x_name), threshold=band.threshold, apart_from=apart
    )
    where = "They are not apart at the end." if apart is None else f"They are apart from {apart:,.0f} on."
    tested = f" {where}" if band.p else ""
    caption = f"Mean difference over seeds, up: as predicted; the band holds all points at once ({band.level:.0%}).{tested}"
    return Figure(f"{found.name}-curve", f"Difference of {found.label}", chart, frame, caption, size="wide", height=280)


def along(x_name: str, frame: pandas.DataFrame) -> pandas.DataFrame:
    """`frame` with its column `x` as `tokens` or `step`, whichever the charts draw over."""
    x = frame["x"].map(math.exp) if x_name == "log_tokens" else frame["x"]
    unknown = pandas.Series(float("nan"), index=frame.index)
    tokens, step = (unknown, x) if x_name == "step" else (x, unknown)
    return frame.drop(columns="x").assign(step=step, tokens=tokens)


def axis_name(x_name: str) -> str | None:
    """Title of a horizontal axis that is neither tokens nor updates."""
    return None if x_name in ("tokens", "log_tokens", "step") else x_name.removeprefix("train.").replace("_", " ")


def _facts(found: PredictionJudgement) -> tuple[tuple[str, str], ...]:
    tests = found.tests
    facts = [
        ("mean effect", wording.effect(found, found.mean)),
        *((f"{wording.level(one)} interval, {one.method}", wording.between(found, one)) for one in found.intervals),
        ("median effect", wording.effect(found, found.median)),
        ("threshold", wording.effect(found, found.at_least)),
        ("standard deviation of differences", wording.number(found.sd)),
        ("standardised effect d", wording.number(found.effect_size)),
        ('p of "the effect is at most the threshold"', _p_words(tests.p_supported, tests.p_supported_adjusted)),
        ('p of "the effect is at least the threshold"', _p_words(tests.p_refuted, tests.p_refuted_adjusted)),
        ("smallest p so many seeds can give", wording.number(tests.p_floor)),
        ("level of this look", wording.number(tests.threshold)),
        ("test", tests.method or "none"),
        *_improvement(found),
        *_left_out(found),
        ("noise between A/A runs, one deviation", wording.number(found.noise_sd)),
        *((fact.name, _told_fact(fact.value, fact.note)) for fact in found.facts),
    ]
    return tuple((name, value) for name, value in facts if value not in ("none", "not tested"))


def _p_words(raw: float | None, adjusted: float | None) -> str:
    return wording.p_value(raw) + ("" if adjusted is None else f", adjusted {wording.p_value(adjusted)}")


def _told_fact(value: float | str | None, note: str) -> str:
    told = value if isinstance(value, str) else wording.number(value)
    return f"{told} ({note})" if note else told


def _improvement(found: PredictionJudgement) -> list[tuple[str, str]]:
    seen = found.probability_of_improvement
    if seen is None or _is_two_sided(found):
        return []
    low, high = (seen.interval.low or 0.0), (1.0 if seen.interval.high is None else seen.interval.high)
    return [
        ("seeds on the predicted side", f"{seen.wins} of {seen.n} ({100 * seen.interval.level:.3g} %: {low:.0%} to {high:.0%})")
    ]


def _left_out(found: PredictionJudgement) -> list[tuple[str, str]]:
    if not found.leave_one_out:
        return []
    means = [one.mean for one in found.leave_one_out]
    p = [one.p for one in found.leave_one_out if one.p is not None]
    largest = f", largest p {max(p):.3g}" if p else ""
    return [("one seed left out", f"mean {wording.effect(found, min(means))} to {wording.effect(found, max(means))}{largest}")]


def _seed_table(found: PredictionJudgement) -> list[Block]:
    rows = tuple(
        (str(one.seed), wording.number(one.versus), wording.number(one.of), wording.effect(found, one.effect), one.note)
        for one in found.effects
    )
    header = ("seed", found.versus or "compared with", found.of or "measured", "effect", "note")
    return [Table(header, rows, f"{found.name} seed by seed")] if rows else []
