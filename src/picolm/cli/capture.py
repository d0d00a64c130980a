"""`pico capture`: snapshots of any Hugging Face causal language model series, for `pico analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from picolm.capture.series import Series
    from picolm.capture.writer import SnapshotBatch


def capture(
    model: Annotated[
        str,
        typer.Argument(
            help="Folders, such as `series/step{step}`, or Hub revisions, such as `EleutherAI/pythia-14m@step{step}`."
        ),
    ],
    data: Annotated[str, typer.Option(help="Prepared tokens to look at, made with the tokenizer of the series.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    steps: Annotated[
        str, typer.Option(help="Steps, such as `0,1,2,4..512,1000,2000..143000`, or `all` that fit the pattern.")
    ] = "all",
    split: Annotated[str, typer.Option(help="Split of the data: `val` or `train`. Default: val where there is one.")] = "",
    sequences: Annotated[int, typer.Option(min=1, help="Rows of it, from its start.")] = 64,
    layers: Annotated[
        str, typer.Option(help="Ends of plain names, or globs, with commas. Default: value, output and down projections.")
    ] = "",
    positions: Annotated[str, typer.Option(help="Token positions whose activations are kept: `-1`, `0,10,-1`, or `all`.")] = "-1",
    ov_gradients: Annotated[
        bool, typer.Option("--ov-gradients", help="Also the exact gradient of every output-value circuit.")
    ] = False,
    tokens_per_step: Annotated[
        int | None, typer.Option(min=1, help="Training tokens per step of the series (Pythia: 2097152).")
    ] = None,
    precision: Annotated[str, typer.Option(help="`float32`, `bfloat16` or `float64`.")] = "float32",
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `mps`, or `auto`.")] = "auto",
    batch_sequences: Annotated[int, typer.Option(min=1, help="Rows per forward and backward pass.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print steps and problems as JSON.")] = False,
) -> None:
    """Look into a series of somebody else's checkpoints: activations and gradients on your text, weights where they are."""
    import json

    from picolm.base.errors import PicoError
    from picolm.capture.post_hoc import Request, capture_series
    from picolm.capture.series import parse_series
    from picolm.cli.console import say, say_next
    from picolm.records.rundir import RunDirectory

    if precision not in ("float32", "bfloat16", "float64"):
        raise PicoError(f"--precision {precision}: not known", "allowed: float32, bfloat16, float64")
    series = parse_series(model)
    batch, decode = _rows(data, split, sequences)
    request = Request(
        series=series,
        batch=batch,
        data_name=data,
        decode=decode,
        layers=tuple(piece.strip() for piece in layers.split(",")) if layers else None,
        positions=_positions(positions),
        ov_gradients=ov_gradients,
        tokens_per_step=tokens_per_step,
        precision=precision,  # type: ignore[arg-type]
        device=_device(device),
        batch_sequences=batch_sequences,
    )
    run = RunDirectory(out)
    problems = capture_series(request, series.members(_steps(steps, series)), run, say)
    if as_json:
        typer.echo(json.dumps({"run": str(out), "steps": run.steps(), "problems": problems}, ensure_ascii=False))
    else:
        typer.echo(f"{len(run.steps())} checkpoints of {series} are in {out}")
        for problem in problems:
            typer.echo(f"problem: {problem}")
    say_next(f"pico analyze {out} captured")


def _steps(text: str, series: Series) -> list[int] | None:
    from picolm.base.errors import PicoError
    from picolm.train.steps import expand_steps

    if text == "all":
        return None
    try:
        return expand_steps(text, max_steps=_largest(text, series))
    except PicoError as error:
        raise PicoError(error.message.replace("checkpointing.steps", "--steps"), error.hint) from error


def _largest(text: str, series: Series) -> int:
    """Where an open end (`1000,2000..`) stops: at the last step there is."""
    return series.members(None)[-1].step if text.replace(" ", "").endswith("..") else 0


def _positions(text: str) -> tuple[int, ...] | str:
    from picolm.base.errors import PicoError

    if text == "all":
        return text
    try:
        return tuple(int(piece) for piece in text.split(","))
    except ValueError as error:
        raise PicoError(f"--positions {text}: not a list of positions", "for example -1, or 0,10,-1, or all") from error


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _rows(data: str, split: str, sequences: int) -> tuple[SnapshotBatch, Callable[[list[int]], Any] | None]:
    """The first rows of a split, and what turns them into text."""
    import numpy

    from picolm.base.errors import PicoError
    from picolm.capture.writer import SnapshotBatch
    from picolm.data.contract import open_source
    from picolm.data.tokenizer import load_tokenizer

    source = open_source(data, {})
    try:
        rows = source.split(split or "val")
    except PicoError:
        if split:
            raise
        rows = source.split("train")
    numbers = numpy.arange(min(sequences, rows.rows))
    decode = None if source.tokenizer_file is None else load_tokenizer(source.tokenizer_file).decode
    return SnapshotBatch(numbers, rows.read(numbers), rows.fingerprint), decode
