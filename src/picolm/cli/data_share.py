"""`pico data index / fetch / push`: token shards that are elsewhere, and our own for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def index(
    place: Annotated[str, typer.Argument(help="Folder or URL of token shards made elsewhere, such as hf://datasets/OWNER/NAME.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the manifest; default: beside the shards.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="The tokenizer the shards were made with.")] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Number of tokens, where there is no tokenizer.")] = None,
    end_of_text: Annotated[
        str | None, typer.Option(help="The token that ends a document, if the tokenizer does not say.")
    ] = None,
) -> None:
    """Write the manifest that makes a folder of parquet token shards readable by `pico train`. The shards stay as they are."""
    from picolm.cli.console import say, say_next
    from picolm.data.index import index_shards
    from picolm.data.tokenizer import load_tokenizer

    loaded = None if tokenizer is None else load_tokenizer(tokenizer, end_of_text)
    data = index_shards(place, out=out, tokenizer=loaded, vocab_size=vocab_size)
    for split, facts in data.manifest["splits"].items():
        say(f"{split}: {facts['rows']:,} rows of {data.row_length} in {len(facts['shards']):,} shard(s)")
    say(f"wrote {data.folder.manifest_file}")
    say_next(f"pico data fetch {data.path}" if data.limit_bytes else f"pico data verify {data.path}")


def fetch(
    data: Annotated[str, typer.Argument(help="URL or Hub name of prepared data, or a folder whose manifest points elsewhere.")],
    split: Annotated[list[str] | None, typer.Option(help="Splits to fetch whole; default: all.")] = None,
    cache_gigabytes: Annotated[float, typer.Option(help="Largest size of the local copy.")] = 20.0,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the manifest anew, if the data were replaced.")] = False,
) -> None:
    """Download remote data before a run, so that the run needs no network. What is here already is not fetched again."""
    from picolm.cli.console import say, say_next
    from picolm.cli.progress import PreparationBar
    from picolm.data.index import fetch_all
    from picolm.data.prepare import PrepareProgress
    from picolm.data.sources import open_prepared, open_remote

    local = Path(data).exists()
    address = data if "://" in data else f"hf://datasets/{data}"
    opened = (
        open_prepared(data, cache_gigabytes=cache_gigabytes)
        if local
        else open_remote(address, cache_gigabytes=cache_gigabytes, refresh=refresh)
    )
    with PreparationBar() as bar:
        for share in fetch_all(opened, split or opened.splits):
            bar.show(PrepareProgress("fetch", share, 0))
    say(f"{opened.name} is here: {opened.cache}")
    say_next(f"pico train CONFIG --set data.dataset.name={data}")


def push(
    folder: Annotated[Path, typer.Argument(help="A prepared folder.")],
    repo: Annotated[str, typer.Argument(help="Dataset on the Hugging Face Hub, OWNER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new dataset private.")] = False,
) -> None:
    """Publish a prepared folder as a dataset on the Hugging Face Hub. A repeated command sends only what is missing."""
    from huggingface_hub import HfApi

    from picolm.cli.console import say, say_next
    from picolm.cli.progress import PreparationBar
    from picolm.data.prepare import PrepareProgress
    from picolm.data.push import push_prepared

    with PreparationBar() as bar:
        address = push_prepared(
            folder, repo, api=HfApi(), private=private, progress=lambda share: bar.show(PrepareProgress("push", share, 0))
        )
    say(f"published {address}")
    say_next(f"pico train CONFIG --set data.dataset.name={repo}")
