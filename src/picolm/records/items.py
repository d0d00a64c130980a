"""`evaluation/items/step_<N>.<evaluation>.parquet`: the headline measure of an evaluation item by item, for paired comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picolm.records import durable
from picolm.records.rundir import RunDirectory


@dataclass(frozen=True)
class Items:
    """Values of the same items, in the same order, under every model."""

    measure: str
    values: Sequence[float]
    weights: Sequence[float] | None = None
    """Denominators, where the measure is a ratio of sums, such as tokens for the loss per token."""


def write_items(run: RunDirectory, step: int, evaluation: str, items: Items) -> Path:
    """Keep the items of an evaluation at a step, replacing older ones."""
    import pyarrow
    import pyarrow.parquet

    path = run.items_file(step, evaluation)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"value": [float(value) for value in items.values]}
    columns |= {} if items.weights is None else {"weight": [float(weight) for weight in items.weights]}
    table = pyarrow.table(columns).replace_schema_metadata({"measure": items.measure})
    temporary = durable.temporary_sibling(path)
    try:
        pyarrow.parquet.write_table(table, temporary)
        durable.flush_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_items(run: RunDirectory, step: int, evaluation: str) -> Items | None:
    """The items of an evaluation at a step, None if they were not kept."""
    import pyarrow.parquet

    path = run.items_file(step, evaluation)
    if not path.is_file():
        return None
    table = pyarrow.parquet.read_table(path)
    weights = table["weight"].to_pylist() if "weight" in table.column_names else None
    return Items((table.schema.metadata or {}).get(b"measure", b"").decode(), table["value"].to_pylist(), weights)
