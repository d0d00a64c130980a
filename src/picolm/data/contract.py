"""What every supply of training tokens looks like to the rest of Pico, and the settings of the YAML section `data`.

A data source of one's own is a class with keyword-only settings that is a `TokenSource`; it is named in `data.dataset.name`
as `./mine.py:MyTokens`, its settings stand in `data.dataset.options`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy
import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from picolm.base.config import OPERATIONAL, Settings
from picolm.base.errors import PicoError
from picolm.base.registry import Registry, checked_options

Rows = numpy.ndarray[Any, numpy.dtype[numpy.int64]]
"""Row numbers, or tokens of rows: int64."""


class TokenRows(Protocol):
    """Numbered rows of tokens, all of one length, that can be read in any order."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def row_length(self) -> int:
        """Tokens per row: one more than a row predicts."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that changes when any token of any row does."""

    def read(self, rows: Rows) -> Rows:
        """Tokens of the rows asked for, (len(rows), row_length), in the order asked for."""


@runtime_checkable
class AnnouncedRows(Protocol):
    """Rows that like to be told what will be read next, because fetching them takes a while."""

    def will_need(self, rows: Rows) -> None:
        """These rows will be asked for soon, in this order."""


class TokenSource(Protocol):
    """Splits of token rows, with the tokenizer that made them. `data/prepare` has the one for prepared folders."""

    @property
    def name(self) -> str:
        """What a person calls it: a folder, a Hub name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over tokenizer and rows of every split."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Counts and provenance; `entropy_floor_nats_per_token` where it is known."""

    @property
    def tokenizer_file(self) -> Path | None:
        """`tokenizer.json`, if the text can be had back."""

    def split(self, name: str) -> TokenRows:
        """The rows of `train` or `val`; PicoError if there is no such split."""


DEFAULT_CACHE_GIGABYTES = 20.0

DATA_SOURCES = Registry("data source", builtin_modules=("picolm.data.sources",))
"""name -> class with keyword-only settings that is a `TokenSource`."""


class DatasetConfig(Settings):
    """`data.dataset`: which tokens."""

    name: str = "pico-lm/pretokenized-dolma"
    """Folder made by `pico data prepare`, URL of one, Hub dataset, or a data source of your own as `./mine.py:MyTokens`."""
    mix: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Several sources with the share of rows each gives, such as `{data/books: 0.7, data/web: 0.3}`; then `name` is left out."""
    cache_gigabytes: Annotated[PositiveFloat, OPERATIONAL] = DEFAULT_CACHE_GIGABYTES
    """Largest size of the local copy of remote shards; the least recently used are given up. Local data are not touched."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of a data source of your own."""

    @pydantic.model_validator(mode="after")
    def _one_of_name_and_mix(self) -> DatasetConfig:
        if self.mix and "name" in self.model_fields_set and self.name != type(self).model_fields["name"].default:
            raise ValueError("give `name` or `mix`, not both")
        return self


class DataLoaderConfig(Settings):
    """`data.dataloader`: how rows become batches."""

    batch_size: PositiveInt = 1024
    """Rows (sequences) per update, over all devices and micro-batches."""
    shuffle: bool = False
    """Permute the rows anew in every epoch, from `training.seeds.data`. False: the order in which they were prepared."""
    prefetch_batches: Annotated[PositiveInt, OPERATIONAL] = 4
    """Batches read ahead in the background."""


class TokenizerConfig(Settings):
    """`data.tokenizer`: which tokenizer, where the data does not carry its own."""

    name: str = "allenai/OLMo-7B-0724-hf"
    """A `tokenizer.json`, a folder with one, or a Hub name. Prepared data carries its own; then leave this out."""
    vocab_size: PositiveInt = 50304
    """Size of the model's vocabulary: that of the tokenizer, padded to a round number."""


class DataConfig(Settings):
    """`data`: tokens, their order and their meaning."""

    dataset: DatasetConfig = DatasetConfig()
    dataloader: DataLoaderConfig = DataLoaderConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()


def open_source(name: str, options: dict[str, Any], cache_gigabytes: float = DEFAULT_CACHE_GIGABYTES) -> TokenSource:
    """The source called `name`: a registered or imported one, else a folder, a URL or a Hub dataset."""
    known = {entry.name for entry in DATA_SOURCES.entries()}
    if name in known or (":" in name and "://" not in name and not Path(name).exists()):
        kind = DATA_SOURCES.find(name)
        source: TokenSource = kind(**checked_options(kind, options, f"data.dataset.options ({name})"))
        return source
    if options:
        raise PicoError(
            f"data.dataset.options: {', '.join(options)}: {name} is not a data source with settings",
            "leave data.dataset.options out, or name a data source as `./mine.py:MyTokens`",
        )
    from picolm.data.sources import open_folder_or_hub

    return open_folder_or_hub(name, cache_gigabytes)
