"""`pico data`: text to token shards, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from picolm.cli import data_look, data_share
from picolm.cli.data_look import Json, print_json

if TYPE_CHECKING:
    from picolm.data.prepare import PreparedData

app = typer.Typer(
    help="Text, JSON lines, parquet or a Hub dataset to token shards; a synthetic language; the batch of a step; hashes.",
    no_args_is_help=True,
)

Column = Annotated[str, typer.Option(help="Field of JSON lines, or column of parquet files, that holds the text.")]
Documents = Annotated[str, typer.Option(help="One document of a plain text file: `file`, `paragraphs` or `lines`.")]
EndOfText = Annotated[str | None, typer.Option(help="The token that ends a document, where the tokenizer does not say.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


@app.command()
def prepare(
    tokenizer: Annotated[str, typer.Option(help="A tokenizer.json, a folder with one, or a Hub name.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Text, JSON lines, parquet (.gz, .bz2, .xz, .zst): files, folders, globs; hf:OWNER/NAME."),
    ] = None,
    val: Annotated[
        list[str] | None, typer.Option(help="Files, folders or globs whose documents are held out. Repeatable.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Random share of the documents to hold out.")] = 0.0,
    share: Annotated[float, typer.Option(help="Random share of the documents to take at all.")] = 1.0,
    max_seq_len: Annotated[int, typer.Option(help="Tokens a row predicts; rows are one longer.")] = 2048,
    rows_per_shard: Annotated[int, typer.Option(help="Rows in each shard.")] = 20_480,
    shards: Annotated[int | None, typer.Option(help="Number of train shards, instead of --rows-per-shard.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 42,
    shuffle: Annotated[bool, typer.Option("--shuffle/--no-shuffle", help="Shuffle documents, then rows.")] = True,
    column: Column = "text",
    documents: Documents = "file",
    padded_vocab_size: Annotated[
        int | None, typer.Option(help="Vocabulary for the model; default: next multiple of 128.")
    ] = None,
    end_of_text: EndOfText = None,
    workers: Annotated[int | None, typer.Option(help="Pieces in work at a time. Does not change the result.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn text into token shards that `pico train` reads. A repeated command continues where a killed one stopped."""
    import os

    from picolm.base.config import parse_settings
    from picolm.base.errors import PicoError
    from picolm.cli.progress import PreparationBar
    from picolm.data.prepare import PrepareSettings
    from picolm.data.prepare import prepare as run
    from picolm.data.tokenizer import load_tokenizer

    given = {
        "max_seq_len": max_seq_len,
        "seed": seed,
        "share": share,
        "val_share": val_share,
        "shuffle": shuffle,
        "rows_per_shard": rows_per_shard,
        "shards": shards,
        "column": column,
        "documents": documents,
        "padded_vocab_size": padded_vocab_size,
    }
    settings = parse_settings(PrepareSettings, given, "pico data prepare")
    if not sources and not val:
        raise PicoError("no text is named", "pico data prepare SOURCE... --tokenizer T --out FOLDER")
    chosen = workers or min(os.cpu_count() or 1, 8)
    with PreparationBar() as bar:
        data = run(
            sources or [],
            tokenizer=load_tokenizer(tokenizer, end_of_text),
            out=out,
            settings=settings,
            val_sources=val or [],
            workers=chosen,
            overwrite=overwrite,
            progress=bar.show,
        )
    _tell(data, as_json)


def _tell(data: PreparedData, as_json: bool) -> None:
    from picolm.cli.console import say, say_next

    manifest = data.manifest
    if as_json:
        print_json(_summary(data))
    for split, facts in manifest["splits"].items():
        say(
            f"{split}: {facts['documents']:,} documents, {facts['tokens']:,} tokens -> {facts['rows']:,} rows of "
            f"{data.row_length} in {len(facts['shards'])} shard(s), {facts['tokens_dropped']:,} tokens dropped at the end"
        )
    inside = manifest["counts"]["end_of_text_in_text"] if "counts" in manifest else 0
    if inside:
        say(f"warning: the text itself holds {inside:,} end-of-text tokens; they look like ends of documents")
    if "entropy_floor_nats_per_token" in manifest:
        say(f"entropy floor: {manifest['entropy_floor_nats_per_token']:.4f} nats per token")
    elif "language" in manifest:
        say(f"no entropy floor: {manifest['language']['floor_is_unknown']}")
    say(f"model.vocab_size for this data: {manifest['padded_vocab_size']} ({manifest['vocab_size']} tokens, padded)")
    say(f"wrote {data.path}")
    say_next(f"pico train CONFIG --set data.dataset.name={data.path}")


def _summary(data: PreparedData) -> dict[str, Any]:
    """The manifest without the list of shards."""
    splits = {
        split: {key: value for key, value in facts.items() if key != "shards"} | {"shards": len(facts["shards"])}
        for split, facts in data.manifest["splits"].items()
    }
    return {"path": str(data.path), **data.manifest, "splits": splits}


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    documents: Annotated[int, typer.Option(min=1, help="Training documents.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of all texts and pairs.")] = 42,
    val_documents: Annotated[
        int | None, typer.Option(min=1, help="Validation documents; default: a twentieth of --documents.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=0, help="Minimal pairs per phenomenon.")] = 100,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A knob of the language, such as depth=3 or zipf_exponent=0. Repeatable.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write texts of a synthetic English-like language whose entropy is known exactly, and minimal pairs for it."""
    from picolm.base.config import apply_overrides, parse_settings
    from picolm.cli.console import say, say_next
    from picolm.data.synthetic import LanguageSettings
    from picolm.data.synthetic import synthesize as run

    language_settings = parse_settings(LanguageSettings, apply_overrides({}, settings or []), "--set")
    language = run(
        out,
        documents=documents,
        val_documents=val_documents,
        seed=seed,
        pairs=pairs,
        settings=language_settings,
        overwrite=overwrite,
    )
    if as_json:
        from picolm.records.synthetic import LanguageFolder

        print_json(LanguageFolder(out).read_description())
    say(f"entropy: {language.entropy_per_sentence:.4f} nats per sentence of {language.words_per_sentence:.2f} words on average")
    say(f"wrote {out}")
    say_next(f"pico data train-tokenizer {out} --vocab-size 1024 --out {out}-tokenizer.json")


@app.command("train-tokenizer")
def train_tokenizer(
    sources: Annotated[list[str], typer.Argument(help="Files, folders and globs of text, as for `prepare`.")],
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    vocab_size: Annotated[int, typer.Option(help="Number of tokens, 256 bytes and end-of-text included.")] = 8192,
    column: Column = "text",
    documents: Documents = "lines",
    overwrite: Overwrite = False,
) -> None:
    """Learn a byte-level BPE tokenizer from text."""
    from picolm.base.config import parse_settings
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.data.documents import read_texts
    from picolm.data.prepare import PrepareSettings
    from picolm.data.tokenizer import train_tokenizer as run

    if out.exists() and not overwrite:
        raise PicoError(f"{out} exists already", "choose another --out, or add --overwrite")
    settings = parse_settings(PrepareSettings, {"column": column, "documents": documents}, "pico data train-tokenizer")
    tokenizer = run(read_texts(sources, column=settings.column, unit=settings.documents), out, vocab_size=vocab_size)
    say(f"wrote {out}: {tokenizer.vocab_size:,} tokens")
    say_next(f"pico data prepare {' '.join(sources)} --tokenizer {out} --out FOLDER")


app.command()(data_look.show)
app.command()(data_look.stats)
app.command()(data_look.verify)
app.command()(data_look.overlap)
app.command()(data_share.index)
app.command()(data_share.fetch)
app.command()(data_share.push)
