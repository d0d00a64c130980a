"""What the run cost: time, tokens, floating-point operations, storage."""

from __future__ import annotations

from picolm.records.manifest import PARTS
from picolm.report.panels.contract import Block, Facts, Missing, Panel, panel
from picolm.report.tables import ReportData, RunTables, section_of
from picolm.report.words import duration, quantity

DEFINITION = """
Training time is the sum of the seconds of all logged updates; it leaves out checkpoints, evaluation and restarts, of which the
pauses are the part that the log has seen. Floating-point operations are those the training counted; where the log has none, they
are estimated as six per parameter and token, which leaves out the attention over the sequence. What a training method spends
beside the language model's own updates is counted apart. Storage is what the manifests of the checkpoints list, less what
retention has removed.
"""


@panel("cost")
def cost(data: ReportData) -> Panel:
    """Time, tokens, operations and bytes of each run."""
    blocks = tuple(_run_block(run, title=run.name if len(data.runs) > 1 else "") for run in data.runs)
    return Panel("Cost", "What it took to train and to keep.", DEFINITION, blocks)


def _run_block(run: RunTables, title: str) -> Block:
    facts = [*_training_facts(run), *_storage_facts(run)]
    return Facts(tuple(facts), title) if facts else Missing(f"{run.name} has neither a log nor checkpoints.")


def _training_facts(run: RunTables) -> list[tuple[str, str]]:
    facts = []
    if run.log["tokens"].notna().any():
        tokens = float(run.log["tokens"].max())
        facts.append(("tokens", quantity(tokens)))
        facts += _operations(run, tokens)
    facts += [(title, f"{quantity(total)}{unit}") for name, title, unit in METHOD if (total := _last(run, name))]
    if "step_seconds" in run.log.columns and run.log["step_seconds"].notna().any():
        facts.append(("training time", duration(training_seconds(run))))
    if PAUSES in run.log.columns and run.log[PAUSES].notna().any():
        facts.append(("pauses between updates", duration(float(run.log[PAUSES].sum()))))
    if "tokens_per_second" in run.log.columns and run.log["tokens_per_second"].notna().any():
        facts.append(("median speed", f"{quantity(float(run.log['tokens_per_second'].median())).strip()} tokens/s"))
    return facts


METHOD = (("method_tokens", "tokens of the method", ""), ("method_flops", "operations of the method", "FLOP"))
PAUSES = "paused_seconds"
TOTALS = ("flops", "method_tokens", "method_flops", PAUSES)
"""Columns of the log that say what was spent: told here, not drawn as curves."""


def _last(run: RunTables, column: str) -> float:
    """The last value of a running total; 0 where the log does not have it."""
    known = [] if column not in run.log.columns else run.log[column].dropna().tolist()
    return float(max(known, default=0.0))


def _operations(run: RunTables, tokens: float) -> list[tuple[str, str]]:
    counted, parameters = _last(run, "flops"), section_of(run.identity, "model").get("parameters")
    if counted:
        return [("operations", f"{quantity(counted)}FLOP")]
    return [("operations", f"{quantity(6.0 * parameters * tokens)}FLOP (estimate)")] if isinstance(parameters, int) else []


def training_seconds(run: RunTables) -> float:
    """Seconds of all updates: the logged ones, scaled to the number of updates where not every update is logged."""
    seconds = run.log["step_seconds"].dropna()
    updates = float(run.log["step"].max())
    return float(seconds.mean() * updates)


def _storage_facts(run: RunTables) -> list[tuple[str, str]]:
    if run.checkpoints.empty:
        return []
    sums = {part: float(run.checkpoints[f"{part}_bytes"].sum()) for part in PARTS}
    facts = [("checkpoints", f"{len(run.checkpoints)}, {quantity(sum(sums.values()))}B")]
    return facts + [(f"of this {part.replace('_', ' ')}", f"{quantity(size)}B") for part, size in sums.items() if size]
