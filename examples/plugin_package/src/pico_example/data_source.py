import hashlib
from pathlib import Path
from typing import Any

import numpy

from picolm.base.errors import PicoError


class Copying:
    """Rows whose second half repeats the first: what a model must look back for. A row depends on its number alone."""

    tokenizer_file: Path | None = None

    def __init__(self, *, vocabulary: int = 60, half: int = 8, rows: int = 4000, seed: int = 0) -> None:
        self.vocabulary, self.half, self.seed = vocabulary, half, seed
        self.counts = {"train": rows, "val": 200}
        self.name = f"copying {half} of {vocabulary} tokens"
        self.fingerprint = hashlib.sha256(f"copying/1 {vocabulary} {half} {rows} {seed}".encode()).hexdigest()

    @property
    def manifest(self) -> dict[str, Any]:
        return {"vocab_size": self.vocabulary}

    def split(self, name: str) -> "CopyingRows":
        if name not in self.counts:
            raise PicoError(f"copying has no split {name}", "train or val")
        return CopyingRows(self, name)


class CopyingRows:
    """The rows of one split."""

    def __init__(self, source: Copying, name: str) -> None:
        self.source, self.name = source, name
        self.rows, self.row_length = source.counts[name], 2 * source.half + 1
        self.fingerprint = hashlib.sha256(f"{source.fingerprint} {name}".encode()).hexdigest()

    def read(self, rows: Any) -> Any:
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.rows:
            raise PicoError(f"there are {self.rows} rows")
        tokens = numpy.zeros((len(rows), self.row_length), dtype=numpy.int64)  # each begins with token 0
        for place, row in enumerate(rows):
            draw = numpy.random.default_rng([self.source.seed, self.name == "val", int(row)])
            tokens[place, 1:] = numpy.tile(draw.integers(1, self.source.vocabulary, self.source.half), 2)
        return tokens
