"""Text files to documents: plain text, JSON lines and parquet, compressed or not, in folders and globs.

A file is read in pieces of a few megabytes, so memory stays bounded and a piece is a unit of work that can be skipped when it is
done already. `data/tokenize` turns a piece into documents and these into tokens.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from picolm.base.errors import PicoError
from picolm.data.hub_dataset import HUB_PREFIX, fetch_dataset
from picolm.records.synthetic import LanguageFolder

PIECE_BYTES = 8 << 20
LARGEST_DOCUMENT_BYTES = 64 << 20
KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

DocumentUnit = Literal["file", "paragraphs", "lines"]


@dataclass(frozen=True)
class SourceFile:
    """One file of text, and the split it goes to."""

    path: Path
    kind: str
    compression: str
    split: str


class Piece(NamedTuple):
    """Consecutive documents of one file, not yet parsed."""

    source: int
    """Number of the file."""
    first_document: int
    """Number of the first document within the file; for JSON lines, of its line, from 0."""
    payload: Sequence[Any]
    """Raw lines, paragraphs or texts, one per document."""
    bytes_read: int
    """How far the file has been read, compressed."""


def expand_sources(names: Sequence[str], split: str) -> list[SourceFile]:
    """The files that names of files, folders and globs stand for, in a fixed order; PicoError if a name stands for nothing."""
    files: list[SourceFile] = []
    for name in names:
        files += _expand(name, split)
    return refuse_doubles(files)


def refuse_doubles(files: list[SourceFile]) -> list[SourceFile]:
    """The files, if each is there once; PicoError if not."""
    seen: set[Path] = set()
    for file in files:
        if file.path.resolve() in seen:
            raise PicoError(f"{file.path} is named twice", "name each source once")
        seen.add(file.path.resolve())
    return files


def _expand(name: str, split: str) -> list[SourceFile]:
    if name.startswith(HUB_PREFIX):
        return [SourceFile(fetch_dataset(name), "parquet", "", split)]
    path = Path(name)
    if path.is_dir():
        language = LanguageFolder(path)
        if language.description.is_file():
            parts = ((language.texts("train"), split), (language.texts("val"), "val"))
            return [_source(file, where) for file, where in parts if file.is_file() and (split == "train" or where == "val")]
        found = sorted(file for file in path.rglob("*") if file.is_file() and _kind_of(file) and not _hidden(file, path))
        if not found:
            raise PicoError(
                f"{name} holds no text files",
                f"files ending in {', '.join(sorted(KINDS))} are read, also with {', '.join(COMPRESSIONS)}",
            )
        return [_source(file, split) for file in found]
    if path.is_file():
        return [_source(path, split)]
    matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 - the name may be absolute
    if not matches:
        raise PicoError(
            f"there is no file or folder {name}", "give paths of text, JSON lines or parquet files, or folders or globs of them"
        )
    return [source for match in matches if match.is_file() for source in [_source(match, split)]]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _kind_of(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def _source(path: Path, split: str) -> SourceFile:
    kind = _kind_of(path)
    if kind is None:
        raise PicoError(
            f"{path}: files ending in {path.suffix or 'nothing'} are not read", f"rename it to one of {', '.join(sorted(KINDS))}"
        )
    if path.stat().st_size == 0:
        raise PicoError(f"{path} is empty", "remove it from the sources")
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    return SourceFile(path, kind, compression, split)


def read_pieces(file: SourceFile, number: int, *, column: str, unit: DocumentUnit) -> Iterator[Piece]:
    """The pieces of a file in order; always the same for the same file."""
    if file.kind == "parquet":
        yield from _parquet_pieces(file, number, column)
        return
    with file.path.open("rb") as raw:
        first = 0
        cut = _lines if file.kind == "jsonl" or unit == "lines" else _paragraphs if unit == "paragraphs" else _whole
        for payload in cut(file.path, _decompressed(raw, file)):
            yield Piece(number, first, payload, raw.tell())
            first += len(payload)


def _decompressed(raw: IO[bytes], file: SourceFile) -> Callable[[int], bytes]:
    """A function that reads the next bytes of the text; PicoError if the compressed form is broken."""
    import bz2
    import gzip
    import lzma

    if not file.compression:
        return raw.read
    if file.compression == ".zst":
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    else:
        openers: dict[str, Callable[[IO[bytes]], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        stream = openers[file.compression](raw)

    def read(size: int) -> bytes:
        try:
            content: bytes = stream.read(size)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise PicoError(
                f"{file.path} cannot be decompressed: {error}", "the file is truncated or damaged; fetch it again"
            ) from error
        return content

    return read


def _lines(path: Path, read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """Lines in groups of about `PIECE_BYTES`."""
    rest = b""
    while block := read(PIECE_BYTES):
        rest += block
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[: end - 1].split(b"\n")
            rest = rest[end:]
        _check_size(path, rest, "a line")
    if rest:
        yield [rest]


def _paragraphs(path: Path, read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """Runs of lines that are not blank, in groups."""
    paragraph: list[bytes] = []
    for lines in _lines(path, read):
        found: list[bytes] = []
        for line in lines:
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                found.append(b"\n".join(paragraph))
                paragraph = []
        if found:
            yield found
    if paragraph:
        yield [b"\n".join(paragraph)]


def _whole(path: Path, read: Callable[[int], bytes]) -> Iterator[list[bytes]]:
    """The file as one document."""
    content = b""
    while block := read(PIECE_BYTES):
        content += block
        _check_size(path, content, "as one document the file")
    yield [content]


def _check_size(path: Path, content: bytes, what: str) -> None:
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise PicoError(
            f"{path}: {what} is longer than {LARGEST_DOCUMENT_BYTES >> 20} MiB",
            "cut it: --documents paragraphs, or --documents lines",
        )


def _parquet_pieces(file: SourceFile, number: int, column: str) -> Iterator[Piece]:
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    try:
        with pyarrow.parquet.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if column not in names:
                raise PicoError(
                    f"{file.path} has no column `{column}`, but: {', '.join(names)}", "name the text column with --column"
                )
            kind = table.schema_arrow.field(column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise PicoError(f"{file.path}: column `{column}` holds {kind}, not text", "name the text column with --column")
            size, rows, first = file.path.stat().st_size, max(table.metadata.num_rows, 1), 0
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                texts = batch.column(0).to_pylist()
                yield Piece(number, first, texts, size * (first + len(texts)) // rows)
                first += len(texts)
    except (pyarrow.ArrowException, OSError) as error:
        raise PicoError(
            f"{file.path} cannot be read as parquet: {error}", "the file is truncated or not parquet; fetch it again"
        ) from error


def parse_piece(piece: Piece, file: SourceFile, *, column: str) -> list[str]:
    """The texts of a piece, one per document; a blank one is an empty text. PicoError names file and line of what is wrong."""
    if file.kind == "parquet":
        return [text or "" for text in piece.payload]
    texts = []
    for offset, raw in enumerate(piece.payload):
        place = f"{file.path}, {'line' if file.kind == 'jsonl' else 'document'} {piece.first_document + offset + 1}"
        if piece.first_document + offset == 0:
            raw = _without_mark(raw, file.path)
        text = _decode(raw, place)
        texts.append(_json_text(text, place, column) if file.kind == "jsonl" else text)
    return texts


def _without_mark(raw: bytes, path: Path) -> bytes:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PicoError(f"{path} is UTF-16", f"convert it: iconv -f UTF-16 -t UTF-8 {path}")
    return raw.removeprefix(b"\xef\xbb\xbf")


def _decode(raw: bytes, place: str) -> str:
    if b"\0" in raw:
        raise PicoError(f"{place}: there is a zero byte, so this is not text", "only UTF-8 text is read")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PicoError(
            f"{place}: byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8", "convert the file, for example with iconv"
        ) from error


def _json_text(line: str, place: str, column: str) -> str:
    if not line.strip():
        return ""
    try:
        record = json.loads(line)
    except ValueError as error:
        raise PicoError(f"{place} is not JSON: {error}", "a file of JSON lines has one object per line") from error
    if not isinstance(record, dict):
        raise PicoError(f"{place} holds a {type(record).__name__}, not an object", 'write lines such as {"text": "..."}')
    if column not in record:
        raise PicoError(f"{place} has no `{column}`, but: {', '.join(record)}", "name the text field with --column")
    text = record[column]
    if not isinstance(text, str):
        raise PicoError(f"{place}: `{column}` is {type(text).__name__}, not text", "name the text field with --column")
    return text


def read_texts(names: Sequence[str], *, column: str, unit: DocumentUnit) -> Iterator[str]:
    """All texts of files, folders and globs, in order, blank ones left out."""
    for number, file in enumerate(expand_sources(names, "train")):
        if file.split == "train":
            for piece in read_pieces(file, number, column=column, unit=unit):
                yield from (text for text in parse_piece(piece, file, column=column) if text.strip())
