"""Where the numbers come from: data, configuration, versions, hashes. Enough to do it again."""

from __future__ import annotations

from typing import Any

from picolm.report.panels.contract import Block, Facts, Missing, Panel, Table, panel
from picolm.report.tables import ReportData, RunTables, flatten_config
from picolm.report.words import told

DEFINITION = """
The configuration hash covers every setting that makes the run what it is; two runs with the same hash, the same data
fingerprint, code version and seeds make the same numbers on the same machine. Hashes are SHA-256. `pico runs verify`
compares every file of every checkpoint with the hashes in its manifest.
"""

_SECTIONS = (("code", "Code"), ("data", "Data"), ("model", "Model"), ("seeds", "Seeds"), ("environment", "Environment"))


@panel("provenance")
def provenance(data: ReportData) -> Panel:
    """Identity, data, versions and configuration of each run; with several runs, only what differs first."""
    blocks: list[Block] = []
    if len(data.runs) > 1:
        blocks.append(_differences(data.runs))
    for run in data.runs:
        blocks += _run_blocks(run, prefix=f"{run.name}: " if len(data.runs) > 1 else "")
    return Panel("Provenance", "Which code, data, settings and seeds made these numbers.", DEFINITION, tuple(blocks))


def _run_blocks(run: RunTables, prefix: str) -> list[Block]:
    plain = {key: value for key, value in run.identity.items() if not isinstance(value, dict | list)}
    blocks: list[Block] = [_facts(prefix + "Run", plain)]
    for key, title in _SECTIONS:
        values = run.identity.get(key)
        blocks.append(
            _facts(prefix + title, values)
            if isinstance(values, dict)
            else Missing(f"{run.name}: run.json does not tell its {key}.")
        )
    blocks.append(_configuration(run))
    return blocks


def _facts(title: str, values: dict[str, Any]) -> Facts:
    return Facts(tuple((str(key).replace("_", " "), told(value)) for key, value in values.items()), title)


def _configuration(run: RunTables) -> Block:
    if not run.config:
        return Missing(f"{run.name} has no training_config.yaml: its settings are not known.")
    rows = tuple(flatten_config(run.config).items())
    return Table(("setting", "value"), rows, caption=f"Configuration of {run.name}, every default written out")


def _differences(runs: tuple[RunTables, ...]) -> Block:
    flats = [flatten_config(run.config) if run.config else {} for run in runs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    rows = [(key, *(flat.get(key, "absent") for flat in flats)) for key in keys]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    if not differing:
        return Missing("All settings of these runs are the same.")
    return Table(("setting", *(run.name for run in runs)), differing, caption="Settings that differ between the runs")
