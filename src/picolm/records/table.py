"""Tidy rows of analysis: one value of one metric on one matrix per row, kept as parquet parts that are never rewritten."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from picolm.records import durable

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True)
class Row:
    """One measured value, or the reason why there is none."""

    run: str
    step: int
    data_type: str
    """weights, activations, gradients, updates or first_order."""
    component: str
    part: str
    """What was measured, such as `attention.v_proj`."""
    metric: str
    value: float | None
    """None if undefined; `note` then says why."""
    variant: str = ""
    seed: int | None = None
    tokens: int | None = None
    """Training tokens seen at `step`."""
    split: str = ""
    """train or val for activations, gradients and updates; empty for weights."""
    layer: int | None = None
    head: int | None = None
    options: str = "{}"
    """The metric's and component's options as canonical JSON."""
    partner: str = ""
    """The run, step or layer compared with, such as `step=100`; empty for metrics of one matrix."""
    null: float | None = None
    """What the metric gives for pure noise of the same shape, where that is known."""
    n: int | None = None
    """Number of entries, singular values or samples the value rests on."""
    dtype: str = ""
    """Stored type of the input."""
    estimator: str = ""
    note: str = ""
    fingerprint: str = ""
    """Hash of inputs, metric, options and version: a row with the same one need not be computed again."""


KEY = (
    *("run", "variant", "seed", "step", "split", "data_type"),
    *("component", "part", "layer", "head", "metric", "options", "partner"),
)
"""Columns that say what a row is about; of two rows with the same key the newer counts."""

_PART = re.compile(r"^part-(\d+)-[0-9a-f]+\.parquet$")
_INTEGERS = ("step", "seed", "tokens", "layer", "head", "n")
_FLOATS = ("value", "null")


def schema() -> pyarrow.Schema:
    """Column names and types of a part."""
    import pyarrow

    def kind(name: str) -> pyarrow.DataType:
        if name in _INTEGERS:
            return pyarrow.int64()
        return pyarrow.float64() if name in _FLOATS else pyarrow.string()

    return pyarrow.schema([(column.name, kind(column.name)) for column in fields(Row)])


def append_rows(folder: Path, rows: Iterable[Row]) -> Path | None:
    """Add a part with these rows, whole or not at all; the path of the part, None if there are no rows."""
    import pyarrow
    import pyarrow.parquet

    records = [vars(row) for row in rows]
    if not records:
        return None
    number = max((int(match[1]) for path in parts(folder) if (match := _PART.match(path.name))), default=-1) + 1
    path = folder / f"part-{number:06d}-{secrets.token_hex(4)}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = durable.temporary_sibling(path)
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema()), temporary)
        durable.flush_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    durable.flush_folder(folder)
    return path


def parts(folder: Path) -> list[Path]:
    """The parts of a table, oldest first."""
    return sorted(path for path in folder.glob("part-*.parquet") if _PART.match(path.name))


def read_rows(folders: Sequence[Path] | Path) -> pandas.DataFrame:
    """All rows of one or several tables, the newest of each key; integer columns may hold missing values."""
    import pandas
    import pyarrow
    import pyarrow.parquet

    chosen = [folders] if isinstance(folders, Path) else list(folders)
    tables = [pyarrow.parquet.read_table(path, schema=schema()) for folder in chosen for path in parts(folder)]
    table = pyarrow.concat_tables(tables) if tables else schema().empty_table()
    frame: pandas.DataFrame = table.to_pandas(types_mapper={pyarrow.int64(): pandas.Int64Dtype()}.get)
    return frame.drop_duplicates(subset=list(KEY), keep="last", ignore_index=True)
