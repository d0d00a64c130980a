"""Any text to a folder of token shards: the recipe of the paper's appendix D, for an input of any size.

Text comes in through `data/documents`; `data/tokenize` makes tokens of it, `data/assemble` shuffles, cuts and writes them; here
is the order of events, the manifest, and what happens after a kill. `open_prepared` gives the result to `data/loader`.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from picolm.base.config import Settings
from picolm.base.errors import PicoError
from picolm.data.assemble import Assembly, SplitCounts, shard_starts
from picolm.data.documents import DocumentUnit, SourceFile, expand_sources, refuse_doubles
from picolm.data.floor import LanguageFacts, find_language
from picolm.data.sources import PreparedData, open_prepared
from picolm.data.tokenize import Counts, DocumentChoice, Tokenizing, TokenPiece, check_counts
from picolm.data.tokenizer import TextTokenizer
from picolm.data.workfolder import working_folder
from picolm.records import durable
from picolm.records.manifest import content, hash_file
from picolm.records.prepared import PreparedFolder, write_manifest

__all__ = ["PrepareProgress", "PrepareSettings", "PreparedData", "open_prepared", "prepare"]


class PrepareSettings(Settings):
    """How text becomes rows of tokens. Together with sources, tokenizer and versions these fix every byte of the result."""

    max_seq_len: PositiveInt = 2048
    """Tokens a row predicts; rows are one token longer."""
    seed: NonNegativeInt = 42
    """Seed of every random choice: share, held-out documents, order of documents, order of rows."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Random share of the documents that is taken at all."""
    val_share: float = Field(default=0.0, ge=0, lt=1)
    """Random share of the taken documents that goes to the split `val`."""
    shuffle: bool = True
    """Whether documents and then rows are shuffled. False keeps the order of the input."""
    rows_per_shard: PositiveInt = 20_480
    """Rows in each shard but the last, unless `shards` says how many."""
    shards: PositiveInt | None = None
    """Number of train shards, equal in size but for one row. Null: as many as `rows_per_shard` makes."""
    column: str = "text"
    """Field of JSON lines, or column of parquet files, that holds the text."""
    documents: DocumentUnit = "file"
    """What one document is in a plain text file: the whole file, each paragraph (blank lines between), or each line."""
    padded_vocab_size: PositiveInt | None = None
    """Vocabulary a model of this data should have. Null: the tokenizer's size, rounded up to a multiple of 128."""


class PrepareProgress(NamedTuple):
    """How far a preparation is."""

    phase: str
    done: float
    """Share of the phase, 0 to 1."""
    tokens: int
    """Tokens so far in this phase."""


def prepare(
    sources: list[str],
    *,
    tokenizer: TextTokenizer,
    out: Path,
    settings: PrepareSettings,
    val_sources: list[str] | None = None,
    workers: int = 2,
    overwrite: bool = False,
    progress: Callable[[PrepareProgress], None] = lambda _: None,
) -> PreparedData:
    """Make a prepared folder at `out` from files, folders and globs of text. Whole or not at all; a repeated call continues."""
    files = refuse_doubles(expand_sources(sources, "train") + expand_sources(val_sources or [], "val"))
    request = _describe_request(files, tokenizer, settings, progress)
    finished = _finished(out, request, overwrite)
    if finished is not None:
        return finished
    with working_folder(out, content(request)) as work:
        job = _Preparation(files, tokenizer, settings, work, workers, progress)
        manifest = job.run() | _provenance(request)
        _publish(work, manifest, tokenizer, find_language(files), out)
    return open_prepared(out)


def _describe_request(
    files: list[SourceFile], tokenizer: TextTokenizer, settings: PrepareSettings, progress: Callable[[PrepareProgress], None]
) -> dict[str, Any]:
    """Everything that fixes the bytes of the result."""
    total, done, sources = sum(file.path.stat().st_size for file in files), 0, []
    for file in files:
        record = hash_file(file.path)
        sources.append({"name": file.path.name, "split": file.split, **vars(record)})
        done += record.bytes
        progress(PrepareProgress("hash", done / total, 0))
    return {
        "settings": settings.model_dump(mode="json"),
        "sources": sources,
        "tokenizer": {"sha256": tokenizer.sha256, "end_of_text": tokenizer.end_of_text},
        "versions": {name: version(name) for name in ("picolm", "tokenizers", "pyarrow", "numpy")},
    }


def _provenance(request: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says about where the tokens come from."""
    versions = request["versions"] | {"python": platform.python_version()}
    return {"settings": request["settings"], "sources": request["sources"], "versions": versions, "request": content(request)}


def _finished(out: Path, request: dict[str, Any], overwrite: bool) -> PreparedData | None:
    """The result if it is there already; PicoError if something else is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    folder = PreparedFolder(out)
    if folder.manifest_file.is_file() and folder.manifest().get("request") == content(request):
        return open_prepared(out)
    if not overwrite:
        raise PicoError(
            f"{out} exists already, made from another input or with other settings", "choose another --out, or add --overwrite"
        )
    return None


class _Preparation:
    """One preparation in its working folder."""

    def __init__(
        self,
        files: list[SourceFile],
        tokenizer: TextTokenizer,
        settings: PrepareSettings,
        work: Path,
        workers: int,
        progress: Callable[[PrepareProgress], None],
    ) -> None:
        self._files = files
        self._tokenizer = tokenizer
        self._settings = settings
        self._work = work
        self._workers = workers
        self._progress = progress
        self._out = PreparedFolder(work / "final")

    def run(self) -> dict[str, Any]:
        """All three passes; the manifest of the result."""
        counts, pieces = self._tokenize()
        check_counts(counts)
        splits = {split: facts for split in ("train", "val") if (facts := self._assemble(split, pieces)) is not None}
        for split in sorted({file.split for file in self._files}):
            if not splits.get(split, {}).get("rows"):
                tokens = splits[split]["tokens"] if split in splits else 0
                raise PicoError(
                    f"the {split} split has {tokens:,} tokens, a row needs {self._settings.max_seq_len + 1:,}",
                    "give more text, or shorter rows with --max-seq-len",
                )
        if self._settings.val_share and not splits.get("val", {}).get("rows"):
            raise PicoError(
                f"--val-share {self._settings.val_share}: the held-out documents do not fill one row "
                f"({counts.documents:,} documents in all)",
                "raise it; cut plain text into documents with --documents paragraphs; or name a file with --val",
            )
        return self._describe(splits, counts)

    def _tokenize(self) -> tuple[Counts, list[TokenPiece]]:
        settings = self._settings
        choice = DocumentChoice(settings.seed, settings.share, settings.val_share, settings.shuffle)
        folder = self._work / "tokens"
        passing = Tokenizing(self._files, self._tokenizer, choice, settings.column, settings.documents, folder)
        total = sum(file.path.stat().st_size for file in self._files)
        counts, tokens, pieces = Counts(), 0, []
        for number, done in enumerate(passing.run(self._workers)):
            counts.add(done.counts)
            tokens += done.tokens
            pieces.append(TokenPiece(folder, number))
            self._progress(PrepareProgress("tokenise", min(done.bytes_read / total, 1.0), tokens))
        return counts, pieces

    def _assemble(self, split: str, pieces: list[TokenPiece]) -> dict[str, Any] | None:
        settings, row_length = self._settings, self._settings.max_seq_len + 1
        assembly = Assembly(
            split, pieces, row_length, self._tokenizer.dtype, settings.seed, settings.shuffle, self._work / "rows"
        )
        counted = assembly.count()
        if not counted.documents:
            return None
        rows = counted.rows(row_length)
        for done in assembly.cut_rows(rows):
            self._progress(PrepareProgress(f"shuffle {split}", done / max(rows, 1), done * row_length))
        shards = settings.shards if split == "train" else None
        if shards is not None and shards > rows:
            raise PicoError(f"--shards {shards}: there are only {rows:,} rows", f"at most --shards {rows}")
        starts = shard_starts(rows, rows_per_shard=settings.rows_per_shard, shards=shards)
        records, written = [], 0
        for record in assembly.write_shards(self._out, starts, self._workers):
            records.append(vars(record))
            written += record.rows
            self._progress(PrepareProgress(f"write {split}", written / rows, written * row_length))
        return _describe_split(counted, rows, row_length, records)

    def _describe(self, splits: dict[str, Any], counts: Counts) -> dict[str, Any]:
        tokenizer = self._tokenizer
        padded = self._settings.padded_vocab_size or -(-tokenizer.vocab_size // 128) * 128
        if padded < tokenizer.vocab_size:
            raise PicoError(f"--padded-vocab-size {padded} is below the tokenizer's {tokenizer.vocab_size:,} tokens")
        described = {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size, "end_of_text": tokenizer.end_of_text}
        language = find_language(self._files)
        return {
            "row_length": self._settings.max_seq_len + 1,
            "dtype": "int32",
            "vocab_size": tokenizer.vocab_size,
            "padded_vocab_size": padded,
            "tokenizer": described | {"end_of_text_id": tokenizer.end_of_text_id},
            "splits": splits,
            "counts": vars(counts),
        } | ({} if language is None else language.floor(tokenizer))


def _describe_split(counted: SplitCounts, rows: int, row_length: int, shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rows": rows,
        "documents": counted.documents,
        "document_lengths": counted.lengths,
        "tokens": counted.tokens,
        "tokens_dropped": counted.tokens - rows * row_length,
        "shards": shards,
    }


def _publish(work: Path, manifest: dict[str, Any], tokenizer: TextTokenizer, language: LanguageFacts | None, out: Path) -> None:
    """Complete the folder and put it in its place in one step."""
    final = PreparedFolder(work / "final")
    for leftover in final.path.rglob(f"*{durable.TEMPORARY_MARK}*"):
        leftover.unlink()
    durable.write_bytes(final.tokenizer_file, tokenizer.file.read_bytes())
    durable.write_json(final.tokenizer_settings, {"eos_token": tokenizer.end_of_text})
    if language is not None:
        language.copy_minimal_pairs(final.minimal_pairs)
    write_manifest(final, manifest)
    durable.flush_tree(final.path)
    if out.exists():
        old = durable.temporary_sibling(out)
        out.rename(old)
        final.path.rename(out)
        shutil.rmtree(old)
    else:
        final.path.rename(out)
    durable.flush_folder(out.parent)
