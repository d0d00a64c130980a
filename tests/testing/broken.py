"""What the tests of all sorts share: a check that cannot fail is a defect, so every promise needs an object that breaks it."""

from __future__ import annotations

from collections.abc import Iterable

from picolm.testing.findings import CheckList, Finding


def broken_promises(findings: Iterable[Finding]) -> set[str]:
    """The promises found broken."""
    return {finding.promise for finding in findings if not finding.ok}


def without_a_culprit(promises: CheckList, broken_by: Iterable[str]) -> set[str]:
    """Promises that no deliberately broken object of the tests breaks."""
    return {promise.name for promise in promises.promises} - set(broken_by)
