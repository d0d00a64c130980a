"""The folder of a generated corpus: texts, minimal pairs, and what is known exactly about the language."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picolm.base.errors import PicoError

FORMAT = "picolm.language/1"


@dataclass(frozen=True)
class LanguageFolder:
    """Paths of one generated corpus. Nothing is created by asking for a path."""

    path: Path

    @property
    def description(self) -> Path:
        """`language.json`: settings, seed, exact entropy, expected counts of word forms."""
        return self.path / "language.json"

    @property
    def minimal_pairs(self) -> Path:
        return self.path / "minimal_pairs"

    def texts(self, split: str) -> Path:
        return self.path / f"{split}.jsonl"

    def pairs(self, phenomenon: str) -> Path:
        return self.minimal_pairs / f"{phenomenon}.jsonl"

    def read_description(self) -> dict[str, Any]:
        """The content of `language.json`."""
        try:
            description = json.loads(self.description.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PicoError(f"{self.path} has no {self.description.name}", "make one with `pico data synthesize`") from error
        except ValueError as error:
            raise PicoError(f"{self.description} is damaged: {error}", "synthesize the language again") from error
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise PicoError(f"{self.description} is not of the format {FORMAT}", "synthesize the language again")
        return description
