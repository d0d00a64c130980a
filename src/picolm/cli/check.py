"""`pico check OBJECT`: whether an extension keeps what its contract promises, and why each promise matters."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from picolm.testing.findings import Finding
    from picolm.testing.sorts import Found

SIGNS = {"holds": "ok", "does not hold": "FAILS", "not applicable": "-"}


def check(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="OBJECT",
            help="`metric:per` (sort and name), `module:object`, `./mine.py:gap`; `schedule:./mine.py:triangle` where the object "
            "does not say of which sort it is.",
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting to examine it with; may be repeated.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out what takes processes of its own, some ten seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Examine an extension: what its contract promises, which of it holds, and why it matters.

    The exit code is 1 if a promise is broken.
    """
    from picolm.testing.sorts import find_object

    found = find_object(reference)
    findings = _findings(found, _options(settings or []), fast)
    if as_json:
        typer.echo(json.dumps(_record(found, findings), indent=1, ensure_ascii=False))
    else:
        _print(found, findings)
    if any(not finding.ok for finding in findings):
        raise typer.Exit(1)


def _options(settings: list[str]) -> dict[str, Any]:
    from picolm.base.config import apply_overrides

    return apply_overrides({}, settings)


def _findings(found: Found, options: dict[str, Any], fast: bool) -> list[Finding]:
    import inspect

    check = found.sort.check
    takes = inspect.signature(check).parameters
    more: dict[str, Any] = {"processes": not fast} if "processes" in takes else {}
    return check(found.object, options=options, **more)


def _record(found: Found, findings: list[Finding]) -> dict[str, Any]:
    failed = sum(not finding.ok for finding in findings)
    return {"object": found.reference, "sort": found.sort.name, "failed": failed, "findings": [asdict(each) for each in findings]}


def _print(found: Found, findings: list[Finding]) -> None:
    from picolm.cli.console import say_next

    typer.echo(f"{found.reference}: {found.sort.name}")
    for finding in findings:
        typer.echo(
            f"{SIGNS[finding.verdict]:>6}  {finding.promise}" + (f"  ({finding.detail})" if finding.ok and finding.detail else "")
        )
        if not finding.ok:
            typer.echo(f"        {finding.detail}\n        why it matters: {finding.why}")
    failed = sum(not finding.ok for finding in findings)
    kept = sum(finding.verdict == "holds" for finding in findings)
    typer.echo(f"{kept} promise(s) kept, {failed} broken, {len(findings) - kept - failed} not applicable")
    say_next(f"pico list {found.sort.name}" if failed == 0 else f"mend it, then: pico check {found.reference}")
