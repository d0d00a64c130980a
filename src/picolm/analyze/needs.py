"""What an analysis reads of a run, known before any of it is here: steps and parts of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from picolm.analyze.config import AnalysisConfig
from picolm.analyze.plan import plan_analysis
from picolm.analyze.source import parts_holding


class Needs(NamedTuple):
    """Steps and parts of checkpoints."""

    steps: tuple[int, ...]
    parts: tuple[str, ...]


def needs_of(config: AnalysisConfig, existing: Sequence[int]) -> Needs:
    """What the analysis reads of a run with these steps; PicoError if it names a step that does not exist."""
    steps = config.chosen_steps(existing)
    measurements = plan_analysis(config, steps).measurements
    read = {data_type for measurement in measurements for data_type in measurement.view.component.reads}
    partners = [measurement.partner for measurement in measurements if measurement.partner is not None]
    if any(partner.kind == "beside" for partner in partners):
        read.add("weights")
    compared = {partner.step for partner in partners if partner.run is None and partner.step is not None}
    return Needs(tuple(sorted({*steps, *compared}.intersection(existing))), parts_holding(read))
