"""What must be equal between variants: tokens, data, tokenizer, evaluation; and what is shown beside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from picolm.records.evaluation import read_settings
from picolm.study.checks import Material
from picolm.study.config import Fact
from picolm.study.judgement import CheckResult, ParityRow
from picolm.study.measures import MeasuredRun
from picolm.study.series import run_fact

_TIMING = ("seconds", "precision", "samples", "skipped")


def parity_rows(material: Material) -> list[ParityRow]:
    """Required facts first, then those that are only reported."""
    budget = material.study.budget
    return [_row(material, fact, required=True) for fact in budget.parity] + [
        _row(material, fact, required=False) for fact in budget.report if fact not in budget.parity
    ]


def parity_check(rows: list[ParityRow]) -> CheckResult:
    """Whether everything required is equal within each seed."""
    required = [row for row in rows if row.required]
    unequal = [row for row in required if row.equal is False]
    details = tuple(
        f"{row.quantity}: " + "; ".join(f"{variant} {values}" for variant, values in row.values.items()) for row in unequal
    )
    passed = False if unequal else (None if any(row.equal is None for row in required) else True)
    named = ", ".join(row.quantity for row in (unequal or required)) or "nothing"
    sentence = f"not equal between variants: {named}" if unequal else f"equal between variants, seed by seed: {named}"
    return CheckResult(name="parity", kind="parity", passed=passed if required else None, sentence=sentence, details=details)


def _row(material: Material, fact: Fact, *, required: bool) -> ParityRow:
    read = _FACTS[fact]
    found = {(run.cell.seed, run.cell.variant): read(run) for run in material.runs(())}
    by_seed = [{value for (seed, _), value in found.items() if seed == one} for one in material.seeds]
    known = bool(found) and not any(None in values for values in by_seed)
    equal = all(len(values) <= 1 for values in by_seed) if known else None
    shown = {
        variant: ", ".join(dict.fromkeys(_shown(value) for (_, name), value in found.items() if name == variant)) or "-"
        for variant in material.study.variants
    }
    return ParityRow(quantity=fact, required=required, equal=equal, values=shown)


def _shown(value: float | str | None) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value[:12]
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e12 else f"{value:.4g}"


def _data(run: MeasuredRun, key: str) -> str | None:
    value = run.files.run.identity().get("data", {}).get(key)
    return None if value is None else str(value)


def _evaluation(run: MeasuredRun) -> str | None:
    """Hash of what the last scores were computed with, their timing left out; `none` if nothing was evaluated."""
    directory = run.files.run
    steps = directory.evaluated_steps()
    settings: dict[str, Any] = read_settings(directory, steps[-1]) if steps else {}
    if not settings:
        return "none"
    kept = {
        label: {key: value for key, value in options.items() if key not in _TIMING} if isinstance(options, dict) else options
        for label, options in settings.items()
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _number(fact: str) -> Callable[[MeasuredRun], float | str | None]:
    return lambda run: run_fact(run.files, fact)


_FACTS: dict[Fact, Callable[[MeasuredRun], float | str | None]] = {
    "tokens": _number("tokens"),
    "steps": _number("steps"),
    "parameters": _number("parameters"),
    "flops": _number("flops"),
    "seconds": _number("seconds"),
    "data": lambda run: _data(run, "fingerprint"),
    "tokenizer": lambda run: _data(run, "tokenizer_sha256"),
    "evaluation": _evaluation,
}
