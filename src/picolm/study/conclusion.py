"""One paragraph of plain words; a person who reads only this is not misled."""

from __future__ import annotations

import math

from picolm.study.judgement import Judgement, PredictionJudgement

_OPENING = {
    "supported": "Supported.",
    "refuted": "Refuted.",
    "inconclusive": "Inconclusive.",
    "invalid": "Invalid: nothing can be said about the hypothesis.",
    "exploratory": "Exploratory: no verdict.",
}


def conclusion_of(judgement: Judgement) -> str:
    """The verdict, what it rests on, what it does not say."""
    sentences = [_OPENING[judgement.verdict], f'The hypothesis was: "{judgement.statement.strip().rstrip(".")}".']
    if judgement.verdict == "invalid":
        failed = [f"{check.name} ({check.sentence})" for check in judgement.checks if check.passed is False]
        return " ".join([*sentences, f"What failed: {'; '.join(failed)}. The numbers below are shown without a verdict."])
    if judgement.verdict == "exploratory":
        return " ".join([*sentences, *_exploratory(judgement)])
    sentences += [_said(found) for found in judgement.predictions if found.primary]
    sentences += _others(judgement)
    sentences += _limits(judgement)
    return " ".join(sentences)


def _exploratory(judgement: Judgement) -> list[str]:
    why = judgement.deviations[0] if judgement.deviations else "it was declared so"
    failed = [check.name for check in judgement.checks if check.passed is False]
    also = [f"Checks that failed: {', '.join(failed)}."] if failed else []
    return [
        f"Reason: {why}.",
        "Differences are shown with intervals; what they suggest needs a study of its own, locked before its runs.",
        *also,
    ]


def _said(found: PredictionJudgement) -> str:
    label = f", {found.sub_label}" if found.sub_label else ""
    text = f"{found.name} ({found.sentence}) is {found.verdict}{label}"
    if found.mean is not None and found.scale != "exact":
        text += f": {_amount(found)}"
    text += "."
    if found.fragile:
        text += " This rests on single seeds: without one of them it would not be so clear."
    if found.verdict == "inconclusive":
        text += f" Why: {found.reason}."
    return text


_NAMES = {
    "difference": "mean difference",
    "log ratio": "mean factor",
    "slope": "mean slope",
    "smallest step": "smallest step between neighbours, on average,",
    "share": "mean score, between -1 and 1,",
    "distance": "mean distance over the curve",
}
"""What the mean effect is called, by its scale."""


def _amount(found: PredictionJudgement) -> str:
    """The effect in words: on ratios the factor."""
    assert found.mean is not None
    turned = "in the predicted direction " if found.direction not in ("", "either") else ""
    shown = math.exp if found.scale == "log ratio" else float
    interval = found.intervals[0] if found.intervals else None
    between = ""
    if interval is not None and interval.low is not None and interval.high is not None:
        between = f" ({100 * interval.level:.3g}% interval {shown(interval.low):.3g} to {shown(interval.high):.3g})"
    return f"{turned}the {_NAMES[found.scale]} is {shown(found.mean):.3g}{between} over {len(found.effects)} seeds"


def _others(judgement: Judgement) -> list[str]:
    rest = [found for found in judgement.predictions if not found.primary]
    if not rest:
        return []
    return ["Beside it: " + "; ".join(f"{found.name} is {found.verdict}" for found in rest) + "."]


def _limits(judgement: Judgement) -> list[str]:
    found = []
    if judgement.failures:
        runs = "1 run" if len(judgement.failures) == 1 else f"{len(judgement.failures)} runs"
        found.append(f"Not ended in the ordinary way, and counted as declared: {runs}.")
    if judgement.next_look is not None:
        found.append(f"The next declared look is at {judgement.next_look} seeds.")
    if judgement.verdict == "inconclusive":
        found.append("Inconclusive does not mean that there is no difference.")
    if judgement.deviations:
        first, *others = judgement.deviations
        more = f"; and {len(others)} more, listed below" if others else ""
        found.append(f"Not as declared: {first}{more}.")
    return found
