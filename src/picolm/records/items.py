"""`evaluation/items/step_<N>.<evaluation>.parquet`: the headline measure of an evaluation item by item, for paired comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from picolm.records import durable
from picolm.records.rundir import RunDirectory


class ItemValues(NamedTuple):
    """The headline measure item by item, in the order of the data: what two models can be compared on in pairs."""

    measure: str
    values: Sequence[float]
    clusters: Sequence[str] | None = None
    """What each item belongs to, where items of one cluster resemble each other: the paradigm of a minimal pair."""
    weights: Sequence[float] | None = None
    """Denominators, where the measure is a ratio of sums, such as tokens for the loss per token."""


def write_items(run: RunDirectory, step: int, evaluation: str, items: ItemValues) -> Path:
    """Keep the items of an evaluation at a step, replacing older ones."""
    import numpy
    import pyarrow
    import pyarrow.parquet

    path = run.items_file(step, evaluation)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"value": numpy.asarray(items.values, dtype=numpy.float64)}
    if items.clusters is not None:
        columns["cluster"] = pyarrow.array(items.clusters, pyarrow.string()).dictionary_encode()
    if items.weights is not None:
        columns["weight"] = numpy.asarray(items.weights, dtype=numpy.float64)
    table = pyarrow.table(columns).replace_schema_metadata({"measure": items.measure})
    temporary = durable.temporary_sibling(path)
    try:
        pyarrow.parquet.write_table(table, temporary)
        durable.flush_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_items(run: RunDirectory, step: int, evaluation: str) -> ItemValues | None:
    """The items of an evaluation at a step, None if they were not kept."""
    import pyarrow.parquet

    path = run.items_file(step, evaluation)
    if not path.is_file():
        return None
    table = pyarrow.parquet.read_table(path)
    clusters, weights = (table[name].to_pylist() if name in table.column_names else None for name in ("cluster", "weight"))
    return ItemValues((table.schema.metadata or {}).get(b"measure", b"").decode(), table["value"].to_pylist(), clusters, weights)
