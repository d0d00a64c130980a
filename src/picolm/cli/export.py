"""`pico export`: leave for other tools, with a check that nothing was lost."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from picolm.model.contract import LanguageModel
    from picolm.model.export import Parity

SAMPLE_TEXT = "The keeper counted the boats twice, and twice there was one more than had gone out."


class Form(StrEnum):
    """What an export is for."""

    llama = "llama"
    pytorch = "pytorch"
    sae_cache = "sae-cache"


def export(
    checkpoint: Annotated[str, typer.Argument(help="Run folder (its last checkpoint), RUN@STEP, or any model folder.")],
    to: Annotated[Form, typer.Option("--to", help="llama: Hugging Face folder. pytorch: own names. sae-cache: for SAELens.")],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist yet.")],
    text: Annotated[str, typer.Option(help="Sample text for the parity check.")] = SAMPLE_TEXT,
    data: Annotated[
        Path | None, typer.Option(help="sae-cache: prepared data folder, or a .npy file of token ids (rows, tokens).")
    ] = None,
    split: Annotated[str, typer.Option(help="sae-cache: split of the prepared data.")] = "train",
    module: Annotated[
        str | None, typer.Option(help="sae-cache: block or module, such as `layers.3`. Default: the middle block.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="sae-cache: rows to run through the model.")] = 256,
    context: Annotated[int, typer.Option(min=1, help="sae-cache: tokens kept of each row.")] = 128,
    batch_sequences: Annotated[int, typer.Option(min=1, help="sae-cache: rows at a time.")] = 16,
) -> None:
    """Write a checkpoint for other tools, open it again, and print the largest difference in logits."""
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.model import export as exports
    from picolm.model.contract import load_model
    from picolm.records.rundir import CheckpointFolder

    folder = _checkpoint_folder(checkpoint)
    if out.exists():
        raise PicoError(f"--out {out} exists already", "choose a new folder")
    model = load_model(folder)
    tokenizer = CheckpointFolder(folder).tokenizer
    tokenizer_file = tokenizer if tokenizer.is_file() else None
    if to is Form.sae_cache:
        if data is None:
            raise PicoError("--to sae-cache needs --data", "give a prepared data folder, or a .npy file of token ids")
        hook = exports.find_hook(model, module or f"layers.{len(model.layout().names_with_role('query')) // 2}")
        tokens_NT = _tokens_of(data, split, rows, context, model)
        parities = exports.export_sae_cache(model, out, hook, tokens_NT, batch_sequences)
        _show(parities, f"activations of {hook.module}, first row of {tokens_NT.shape[0]} x {tokens_NT.shape[1]} tokens")
        say(f"written: {out}; in SAELens: use_cached_activations, cached_activations_path={out}, hook_name={hook.hf_module}")
        say_next(f"python -c \"import datasets; print(datasets.load_from_disk('{out}'))\"")
        return
    tokens_BT, sample = _sample_tokens(model, tokenizer_file, text)
    write = exports.export_llama if to is Form.llama else exports.export_pytorch
    _show(write(model, out, tokenizer_file, tokens_BT), f"logits on {sample}")
    kind = (model.hf_config() if to is Form.llama else {"architectures": [type(model).__name__]})["architectures"][0]
    say(f"written: {out} ({kind})")
    say_next(f"pico evaluate {out} --metric perplexity:data=TEXTS")


def _checkpoint_folder(target: str) -> Path:
    """The folder of RUN@STEP, of a run's last checkpoint, or the model folder itself."""
    from picolm.base.errors import PicoError
    from picolm.records.rundir import RunDirectory, open_run_directory

    name, at, step = target.rpartition("@")
    if not at and not RunDirectory(Path(target)).identity_file.is_file():
        return Path(target)
    run = open_run_directory(name if at else target)
    steps = run.steps()
    if at and not (step.isdecimal() and int(step) in steps):
        raise PicoError(f"{name} has no checkpoint of step {step}", "it has: " + ", ".join(map(str, steps)))
    if not steps:
        raise PicoError(f"{target} has no finished checkpoint", "continue the run with `pico train`")
    return run.checkpoint(int(step) if at else steps[-1])


def _sample_tokens(model: LanguageModel, tokenizer_file: Path | None, text: str) -> tuple[Tensor, str]:
    """Token ids for the parity check and what they are: the text, or fixed random ids where there is no tokenizer."""
    import torch

    if tokenizer_file is None:
        ids = torch.randint(0, model.vocab_size, (1, min(64, model.max_seq_len)), generator=torch.Generator().manual_seed(0))
        return ids, f"{ids.numel()} fixed random tokens (the folder has no tokenizer)"
    from tokenizers import Tokenizer

    ids = torch.tensor([Tokenizer.from_file(str(tokenizer_file)).encode(text).ids[: model.max_seq_len]])
    return ids, f"{ids.numel()} tokens of sample text"


def _tokens_of(data: Path, split: str, rows: int, context: int, model: LanguageModel) -> Tensor:
    """(rows, context) token ids from a prepared folder or a .npy file."""
    import numpy
    import torch

    from picolm.base.errors import PicoError
    from picolm.model.positions import check_tokens

    if data.suffix == ".npy":
        try:
            ids = numpy.load(data, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PicoError(f"--data {data} is not a readable .npy file: {error}") from error
        if ids.ndim != 2 or not numpy.issubdtype(ids.dtype, numpy.integer):
            raise PicoError(f"--data {data} holds {ids.dtype} of shape {ids.shape}", "token ids are integers, (rows, tokens)")
        ids = ids[:rows]
    else:
        from picolm.data.sources import open_prepared

        source = open_prepared(data).split(split)
        ids = source.read(numpy.arange(min(rows, source.rows)))
    if ids.shape[1] < context:
        raise PicoError(
            f"--context {context} is longer than the rows of {data}: {ids.shape[1]} tokens", f"--context {ids.shape[1]}"
        )
    tokens_NT = torch.from_numpy(ids[:, :context].astype(numpy.int64))
    check_tokens(model, tokens_NT)
    return tokens_NT


def _show(parities: list[Parity], what: str) -> None:
    typer.echo(f"largest difference in {what}:")
    for parity in parities:
        typer.echo(f"  read by {parity.reader}: {parity.difference:.2e}")
