"""A dataset of the Hugging Face Hub as a source of text: fetched whole with `datasets`, kept as one parquet file."""

from __future__ import annotations

import re
from pathlib import Path

from picolm.base.errors import PicoError
from picolm.data.decoded import user_cache
from picolm.records import durable
from picolm.records.manifest import content

HUB_PREFIX = "hf:"
FORM = re.compile(r"hf:(?P<name>[^@#]+)(#(?P<config>[^@]+))?(@(?P<split>.+))?")


def fetch_dataset(source: str) -> Path:
    """The parquet file of `hf:OWNER/NAME`, with `#CONFIG` and `@SPLIT` (train) if need be; fetched once, then cached."""
    target = user_cache() / "datasets" / f"{content(source)[:24]}.parquet"
    if target.is_file():
        return target
    parts = FORM.fullmatch(source)
    if parts is None:
        raise PicoError(f"{source} is not a dataset", "write hf:OWNER/NAME, hf:OWNER/NAME#CONFIG or hf:OWNER/NAME@SPLIT")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise PicoError(f"{source} needs the package `datasets`", 'pip install "picolm[hf]"') from error
    try:
        table = datasets.load_dataset(parts["name"], parts["config"], split=parts["split"] or "train")
    except Exception as error:  # many kinds; all mean that the dataset is not to be had under this name
        reason = str(error).strip().split("\n")[0]
        raise PicoError(
            f"{source} cannot be fetched: {reason}", "check name, configuration and split, and the network"
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = durable.temporary_sibling(target)
    try:
        table.to_parquet(str(temporary))
        durable.flush_file(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target
