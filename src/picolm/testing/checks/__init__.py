"""Conformance checks: one per sort of extension, each a list of findings about an object. `pico check` prints them.

In a test of one's own: `assert complaints(check_metric(gap)) == []`.
"""

from __future__ import annotations

from picolm.testing.checks.method import check_method
from picolm.testing.checks.metric import check_metric
from picolm.testing.checks.optimizer import check_optimizer
from picolm.testing.checks.schedule import check_schedule
from picolm.testing.findings import Finding, complaints

__all__ = ["Finding", "check_method", "check_metric", "check_optimizer", "check_schedule", "complaints"]
