"""The data of a run, opened and checked against tokenizer and model; every name that cannot be reached is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.data.contract import TokenRows, TokenSource, open_source
from picolm.data.sources import open_data
from picolm.data.tokenizer import load_tokenizer
from picolm.train.config import RunConfig


def open_checked_data(config: RunConfig[Any]) -> TokenSource:
    """The tokens to train on, checked against tokenizer and model."""
    data = open_data(config.data)
    _check_tokenizer(config, data)
    row_length = data.split("train").row_length
    if row_length - 1 > config.model.max_seq_len:
        raise PicoError(
            f"model.max_seq_len = {config.model.max_seq_len}, but a row of {data.name} predicts {row_length - 1} tokens",
            f"--set model.max_seq_len={row_length - 1}, or prepare the data with shorter rows",
        )
    return data


def open_val_rows(config: RunConfig[Any]) -> TokenRows | None:
    """The rows of the fixed val batch, if snapshots have one."""
    dynamics = config.checkpointing.learning_dynamics
    if not dynamics.enabled or dynamics.eval_data is None:
        return None
    setting = "checkpointing.learning_dynamics.eval_data"
    try:
        rows = open_source(dynamics.eval_data, {}).split("val")
    except PicoError as error:
        hint = f"name prepared data with a val split, or do without val snapshots: --set {setting}=null"
        reason = error.message.removeprefix(f"data.dataset.name = {dynamics.eval_data!r}: ")
        raise PicoError(f"{setting} = {dynamics.eval_data!r}: {reason}", hint) from error
    if rows.row_length - 1 > config.model.max_seq_len:
        raise PicoError(
            f"{setting}: a row predicts {rows.row_length - 1} tokens, model.max_seq_len is {config.model.max_seq_len}"
        )
    return rows


def all_problems(*attempts: Callable[[], Any]) -> list[Any]:
    """The results of all attempts; one PicoError with every problem if some of them fail."""
    results, errors = [], []
    for attempt in attempts:
        try:
            results.append(attempt())
        except PicoError as error:
            errors.append(error)
    if errors:
        raise PicoError(
            "\n".join(error.message for error in errors), "\n      ".join(error.hint for error in errors if error.hint)
        )
    return results


def _check_tokenizer(config: RunConfig[Any], data: TokenSource) -> None:
    tokenizer_name, default = config.data.tokenizer.name, type(config.data.tokenizer)().name
    carried = load_tokenizer(data.tokenizer_file) if data.tokenizer_file is not None else None
    if tokenizer_name != default and carried is not None and load_tokenizer(Path(tokenizer_name)).sha256 != carried.sha256:
        raise PicoError(
            f"data.tokenizer.name = {tokenizer_name!r} is not the tokenizer that {data.name} was prepared with",
            "leave data.tokenizer.name out: prepared data carries its tokenizer",
        )
    if carried is not None and carried.vocab_size > config.model.vocab_size:
        raise PicoError(
            f"model.vocab_size = {config.model.vocab_size}, but {data.name} has {carried.vocab_size} tokens",
            f"--set model.vocab_size={carried.vocab_size}",
        )


def describe_data(data: TokenSource) -> dict[str, Any]:
    """What `run.json` says about the data."""
    rows = data.split("train")
    return {
        "name": Path(data.name).name,
        "fingerprint": data.fingerprint,
        "rows": rows.rows,
        "row_length": rows.row_length,
        "entropy_floor_nats_per_token": data.manifest.get("entropy_floor_nats_per_token"),
        "tokenizer_sha256": None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file).sha256,
    }
