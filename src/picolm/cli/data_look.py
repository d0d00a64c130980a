"""`pico data show / stats / verify / overlap`: what is in prepared data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Prepared = Annotated[str, typer.Argument(help="A prepared folder, or the URL or Hub name of one.")]


def print_json(value: Any) -> None:
    """A value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def show(
    data: Annotated[str, typer.Argument(help="A prepared folder, its URL or Hub name, or a training configuration (.yaml).")],
    step: Annotated[int, typer.Option(min=0, help="The step whose batch is shown.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step, where no configuration says.")] = 8,
    text: Annotated[bool, typer.Option("--text", help="Show the text of the rows.")] = False,
    as_json: Json = False,
) -> None:
    """Print the batch that makes update N: row numbers, and tokens or text."""
    from picolm.cli.console import say, say_next
    from picolm.data.inspect import batch_of_step

    batch = batch_of_step(data, step, batch_size)
    if as_json:
        print_json(batch.as_json(text))
    else:
        for row, content in zip(batch.rows, batch.texts() if text else batch.tokens_as_text(), strict=True):
            typer.echo(f"row {row}: {content}")
    say(f"step {step} of {batch.steps_per_epoch:,} in an epoch, {len(batch.rows)} rows")
    say_next(f"pico data show {data} --step {step + 1}{' --text' if text else ''}")


def stats(
    data: Prepared,
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    top: Annotated[int, typer.Option(min=1, help="How many of the most frequent tokens to list.")] = 20,
    as_json: Json = False,
) -> None:
    """Lengths of documents, frequencies of tokens, documents per row."""
    from picolm.cli.console import say_next
    from picolm.data.inspect import measure_split

    measured = measure_split(data, split, top)
    if as_json:
        print_json(measured)
    else:
        for line in _stats_lines(measured):
            typer.echo(line)
    say_next(f"pico data show {data} --step 0 --text")


def _stats_lines(measured: dict[str, Any]) -> list[str]:
    lines = [f"{name.replace('_', ' ')}: {value:,}" for name, value in measured.items() if isinstance(value, int | float)]
    for name in ("document_lengths", "documents_per_row"):
        facts = ", ".join(f"{key} {value:,}" for key, value in measured[name].items())
        lines.append(f"{name.replace('_', ' ')}: {facts}")
    return [*lines, *(f"{share['share']:8.3%}  {share['id']:>6}  {share['token']!r}" for share in measured["most_frequent"])]


def verify(
    folder: Annotated[Path, typer.Argument(help="A prepared folder.")],
    as_json: Json = False,
) -> None:
    """Check every shard against the manifest: size, hash, rows, token ids; and the decoded copies."""
    from picolm.cli.console import say
    from picolm.data.inspect import find_damage

    problems = find_damage(folder)
    if as_json:
        print_json({"path": str(folder), "problems": problems})
    for problem in problems:
        say(problem)
    if problems:
        raise typer.Exit(1)
    say(f"{folder} is as its manifest says")


def overlap(
    data: Prepared,
    against: Annotated[str | None, typer.Option(help="Other prepared data whose val split is tested; default: its own.")] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Tokens that must agree in a row.")] = 13,
    as_json: Json = False,
) -> None:
    """How much of the val split also stands in the train split: n-grams of tokens, and where."""
    from picolm.cli.console import say, say_next
    from picolm.data.inspect import find_overlap

    report = find_overlap(data, against, ngram)
    if as_json:
        print_json(report)
    else:
        typer.echo(
            f"{report['val_ngrams_in_train']:,} of {report['val_ngrams']:,} {ngram}-grams of the val split stand in the train "
            f"split too ({report['share']:.4%}); {report['val_rows_touched']:,} of {report['val_rows']:,} rows are touched"
        )
        for example in report["examples"]:
            typer.echo(f"val row {example['row']}, place {example['place']}: {example['text']!r}")
    say("n-grams over the border of two rows are not counted")
    say_next(f"pico data stats {data} --split val")
