"""From the exact entropy of a synthetic language to nats per token under a tokenizer: the floor that no loss can pass for long.

The description of the language (`language.json`) arrives with its texts; `data/prepare` puts the floor into the manifest; the
loss chart draws it.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError
from picolm.data.documents import SourceFile
from picolm.data.tokenizer import TextTokenizer
from picolm.records.synthetic import LanguageFolder

WORD_FORM = re.compile(r" ?[A-Za-z]+|[^A-Za-z ]")
"""The forms that texts of a synthetic language are cut into: words with the space before them, and marks."""

CHECKED_DOCUMENTS = 200


@dataclass(frozen=True)
class LanguageFacts:
    """What is known exactly about the texts of a synthetic language."""

    folder: LanguageFolder
    description: dict[str, Any]

    def floor(self, tokenizer: TextTokenizer) -> dict[str, Any]:
        """Entropy per token under a tokenizer that treats each word form by itself; without it, under another.

        floor = H(document) / E[tokens of a document, end-of-text included]. Documents are independent, so this is the entropy
        rate of the token stream, and the text gives back the derivation, so it is exact. A model sees a row only from its
        beginning on, hence its mean loss on fresh rows stays above. For a tokenizer whose tokens reach over word forms the
        mean number of tokens is taken over the texts.
        """
        confused = self._confused_forms(tokenizer)
        if confused:
            return {"language": {"floor_is_unknown": f"the tokenizer does not tell {confused[0]!r} from {confused[1]!r}"}}
        exact = self._is_additive(tokenizer)
        tokens = self._expected_tokens(tokenizer) if exact else self._mean_tokens(tokenizer)
        entropy = float(self.description["entropy_nats_per_document"])
        return {
            "entropy_floor_nats_per_token": entropy / tokens,
            "language": {
                "entropy_nats_per_document": entropy,
                "entropy_nats_per_word": float(self.description["entropy_nats_per_word"]),
                "tokens_per_document": tokens,
                "tokens_per_document_is": "exact" if exact else "a mean over the texts",
                "settings": self.description["settings"],
                "seed": self.description["seed"],
            },
        }

    def copy_minimal_pairs(self, target: Path) -> None:
        """Put the minimal pairs beside the prepared data."""
        if self.folder.minimal_pairs.is_dir():
            shutil.copytree(self.folder.minimal_pairs, target, dirs_exist_ok=True)

    def _confused_forms(self, tokenizer: TextTokenizer) -> list[str]:
        """Two words that have the same tokens, if any: then tokens carry less than the text, and the floor would be too high."""
        forms = list(self.description["expected_forms_per_document"])
        words: dict[tuple[int, ...], str] = {}
        for form, tokens in zip(forms, tokenizer.encode_batch(forms), strict=True):
            word = form.strip().lower()  # spaces and capitals follow from the place of a word
            if words.setdefault(tuple(tokens.tolist()), word) != word:
                return [words[tuple(tokens.tolist())], word]
        return []

    def _expected_tokens(self, tokenizer: TextTokenizer) -> float:
        forms = self.description["expected_forms_per_document"]
        lengths = [len(tokens) for tokens in tokenizer.encode_batch(list(forms))]
        return 1.0 + float(sum(count * length for count, length in zip(forms.values(), lengths, strict=True)))

    def _is_additive(self, tokenizer: TextTokenizer) -> bool:
        texts = list(itertools.islice(self._texts(), CHECKED_DOCUMENTS))
        whole = [len(tokens) for tokens in tokenizer.encode_batch(texts)]
        forms = [WORD_FORM.findall(text) for text in texts]
        parts = [sum(len(tokens) for tokens in tokenizer.encode_batch(pieces)) for pieces in forms]
        return whole == parts

    def _mean_tokens(self, tokenizer: TextTokenizer) -> float:
        lengths = [1 + len(tokens) for tokens in tokenizer.encode_batch(list(self._texts()))]
        return sum(lengths) / len(lengths)

    def _texts(self) -> Iterator[str]:
        with self.folder.texts("train").open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def find_language(files: list[SourceFile]) -> LanguageFacts | None:
    """The language whose texts the files are; None for other text. PicoError if a language is mixed with other text."""
    folders = {file.path.parent for file in files if LanguageFolder(file.path.parent).description.is_file()}
    if not folders:
        return None
    if len({file.path.parent for file in files}) > 1:
        raise PicoError(
            "a synthetic language is mixed with other text, so its entropy floor would mean nothing",
            "prepare each by itself and mix them in training: data.dataset.mix",
        )
    folder = LanguageFolder(folders.pop())
    return LanguageFacts(folder, folder.read_description())
