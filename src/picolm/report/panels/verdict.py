"""What was found about the study whose runs these are: the verdict and every prediction, above the runs themselves."""

from __future__ import annotations

from picolm.report.panels.contract import Block, Figures, Missing, Panel, Remark, panel
from picolm.report.study.predictions import ESTIMATES, OVERVIEW, overview, prediction_figures
from picolm.report.tables import ReportData


@panel("verdict")
def verdict(data: ReportData) -> Panel:
    """The conclusion of the study, its predictions with their verdicts, and the effect in each seed."""
    sentence = "Whether the evidence supports the hypothesis that was declared before these runs were made."
    judgement = None if data.study is None else data.study.judgement
    if judgement is None:
        missing = (
            "These runs are not reported as those of a study: name the folder of one."
            if data.study is None
            else f"The study {data.study.name} was not judged yet: `pico study judge` does."
        )
        return Panel("Verdict", sentence, OVERVIEW, (Missing(missing),))
    effects = tuple(figure for found in judgement.predictions for figure in prediction_figures(found, judgement)[:1])
    blocks: list[Block] = [Remark(judgement.conclusion), *overview(judgement).blocks]
    blocks += [Figures(effects)] if effects else []
    return Panel("Verdict", sentence, "\n\n".join([OVERVIEW, ESTIMATES]), tuple(blocks), verdict=judgement.verdict)
