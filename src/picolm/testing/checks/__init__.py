"""Conformance checks: one per sort of extension, each a list of findings about an object. `pico check` prints them.

In a test of one's own: `assert complaints(check_metric(gap)) == []`.
"""

from __future__ import annotations

from picolm.testing.checks.architecture import check_architecture
from picolm.testing.checks.component import check_component
from picolm.testing.checks.data_source import check_data_source
from picolm.testing.checks.evaluation import check_evaluation
from picolm.testing.checks.method import check_method
from picolm.testing.checks.metric import check_metric
from picolm.testing.checks.optimizer import check_optimizer
from picolm.testing.checks.panel import check_panel
from picolm.testing.checks.schedule import check_schedule
from picolm.testing.findings import Finding, complaints

__all__ = [
    "Finding",
    "check_architecture",
    "check_component",
    "check_data_source",
    "check_evaluation",
    "check_method",
    "check_metric",
    "check_optimizer",
    "check_panel",
    "check_schedule",
    "complaints",
]
