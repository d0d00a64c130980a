"""Text to token ids and back: any `tokenizer.json`, and training of a byte-level BPE of one's own.

`data/prepare` encodes whole corpora with it; a prepared folder and each checkpoint carry the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError
from picolm.records import durable

END_OF_TEXT = "<|endoftext|>"
"""What our own tokenizers call the end of a document."""

KNOWN_ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<end_of_text>", "[EOS]", "<|im_end|>")
"""Names looked for, in this order, in tokenizers that do not say which token ends a text."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

TokenArray = numpy.ndarray[Any, numpy.dtype[numpy.uint32]]


class TextTokenizer:
    """A `tokenizer.json` with the token that ends a document."""

    def __init__(self, file: Path, content: bytes, end_of_text: str | None) -> None:
        from tokenizers import Tokenizer

        self.file = file
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare Exception
            raise PicoError(f"{file} is not a tokenizer.json: {error}", "name the tokenizer.json of a fast tokenizer") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.end_of_text = end_of_text or _find_end_of_text(file, self._tokenizer)
        found = self._tokenizer.token_to_id(self.end_of_text)
        if found is None:
            raise PicoError(f"{file} has no token {self.end_of_text!r}", "name its end-of-text token with --end-of-text")
        self.end_of_text_id: int = found

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """The smallest unsigned integer that holds every id."""
        return numpy.dtype(numpy.uint16 if self.vocab_size <= 1 << 16 else numpy.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[TokenArray]:
        """Token ids of each text, on all cores; no token is added."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [numpy.array(encoding.ids, dtype=numpy.uint32) for encoding in encodings]

    def encode(self, text: str) -> TokenArray:
        """Token ids of one text; no token is added."""
        return numpy.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=numpy.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, end-of-text marks included."""
        text: str = self._tokenizer.decode([int(id) for id in ids], skip_special_tokens=False)
        return text

    def token(self, id: int) -> str:
        """The piece of text that a token stands for, readable; ids of the padding of the vocabulary have none."""
        return self.decode([id]) if self._tokenizer.id_to_token(id) is not None else f"<id {id}>"


def load_tokenizer(path: str | Path, end_of_text: str | None = None) -> TextTokenizer:
    """The tokenizer in a file `tokenizer.json`, in a folder that has one, or of that name on the Hub.

    `end_of_text` overrules what the file says.
    """
    place = Path(path)
    if not place.exists() and HUB_NAME.fullmatch(str(path)) and place.suffix != ".json":
        place = _download(str(path))
    file = place / "tokenizer.json" if place.is_dir() else place
    try:
        return _read(file, end_of_text, _state_of(file), _state_of(file.parent / "tokenizer_config.json"))
    except FileNotFoundError as error:
        hint = "name a tokenizer.json, a folder with one, or make one with `pico data train-tokenizer`"
        raise PicoError(f"there is no tokenizer at {path}", hint) from error


def _state_of(file: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(maxsize=4)
def _read(file: Path, end_of_text: str | None, *states: tuple[int, int, int] | None) -> TextTokenizer:
    """The tokenizer in a file. A run asks for the same one in several places, and a large one takes a third of a second.

    `states`: of the files it is read from, so that a changed file is read again.
    """
    return TextTokenizer(file, file.read_bytes(), end_of_text)


def _download(name: str) -> Path:
    """The tokenizer of a Hub model, from the Hub's own cache if it is there."""
    import huggingface_hub

    try:
        file = Path(huggingface_hub.hf_hub_download(name, "tokenizer.json"))
        with contextlib.suppress(huggingface_hub.errors.EntryNotFoundError):
            huggingface_hub.hf_hub_download(name, "tokenizer_config.json")
    except Exception as error:  # the client raises many kinds; every one means: not to be had
        hint = "name a tokenizer.json, a folder with one, or make one with `pico data train-tokenizer`"
        raise PicoError(
            f"there is no tokenizer at {name}, and the Hub does not give one: {error}".split("\n")[0], hint
        ) from error
    return file


def _find_end_of_text(file: Path, tokenizer: Any) -> str:
    settings = file.parent / "tokenizer_config.json"
    if settings.is_file():
        named = json.loads(settings.read_text(encoding="utf-8")).get("eos_token")
        text = named.get("content") if isinstance(named, dict) else named
        if isinstance(text, str) and tokenizer.token_to_id(text) is not None:
            return text
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for name in KNOWN_ENDS_OF_TEXT:
        if name in special or tokenizer.token_to_id(name) is not None:
            return name
    shown = ", ".join(sorted(special)[:10]) or "none"
    raise PicoError(
        f"{file} does not say which token ends a text (its special tokens: {shown})", "name the token with --end-of-text"
    )


def train_tokenizer(texts: Iterator[str], out: Path, *, vocab_size: int, end_of_text: str = END_OF_TEXT) -> TextTokenizer:
    """Learn a byte-level BPE of `vocab_size` tokens (256 bytes, end-of-text, merges) from texts and write it to `out`.

    Every text can be encoded and comes back unchanged: there is no normaliser and no unknown token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise PicoError(f"vocab_size = {vocab_size} is too small", f"at least {len(alphabet) + 1}: 256 bytes and end-of-text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[end_of_text], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    durable.write_text(out, tokenizer.to_str(pretty=True))
    return load_tokenizer(out, end_of_text)
