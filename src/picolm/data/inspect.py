"""What is in prepared data: the batch of a step, frequencies and lengths, and whether every file is as the manifest says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from picolm.base.config import parse_settings, read_yaml
from picolm.base.errors import PicoError
from picolm.data.contract import DataConfig, Rows, TokenSource, open_source
from picolm.data.loader import build_loader
from picolm.data.overlap import measure_overlap
from picolm.data.parquet import read_shard
from picolm.data.sources import PreparedData, open_data, open_prepared
from picolm.data.tokenizer import TextTokenizer, load_tokenizer
from picolm.records.manifest import hash_file
from picolm.records.prepared import ShardRecord, folder_fingerprint, shards_of

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class ShownBatch:
    """The rows of one step."""

    step: int
    rows: list[int]
    tokens: Rows
    steps_per_epoch: int
    tokenizer: TextTokenizer | None

    def texts(self) -> list[str]:
        """The text of each row."""
        if self.tokenizer is None:
            raise PicoError("this data carries no tokenizer, so it has no text", "leave out --text")
        return [self.tokenizer.decode(row) for row in self.tokens]

    def tokens_as_text(self) -> list[str]:
        """The numbers of each row."""
        return [" ".join(map(str, row)) for row in self.tokens]

    def as_json(self, text: bool) -> dict[str, Any]:
        content: dict[str, Any] = {"step": self.step, "rows": self.rows, "input_ids": self.tokens.tolist()}
        return content | ({"text": self.texts()} if text else {})


def batch_of_step(name: str, step: int, batch_sequences: int) -> ShownBatch:
    """The batch of a step of a prepared folder, or of the run that a training file describes."""
    if name.endswith((".yaml", ".yml")):
        content = read_yaml(Path(name))
        config = parse_settings(DataConfig, content.get("data") or {}, f"{name}: data")
        seeds = (content.get("training") or {}).get("seeds", 42)
        seed = int(seeds.get("data", 42) if isinstance(seeds, dict) else seeds)
    else:
        config = DataConfig.model_validate({"dataset": {"name": name}, "dataloader": {"batch_size": batch_sequences}})
        seed = 42
    source = open_data(config)
    loader = build_loader(config, source, seed=seed)
    rows = loader.rows_of_step(step)
    per_epoch = source.split("train").rows // loader.batch_sequences
    return ShownBatch(step, rows.tolist(), source.split("train").read(rows), per_epoch, _tokenizer_of(source))


def _tokenizer_of(source: TokenSource) -> TextTokenizer | None:
    if source.tokenizer_file is None:
        return None
    described = source.manifest.get("tokenizer") or {}
    return load_tokenizer(source.tokenizer_file, described.get("end_of_text"))


def find_overlap(name: str, against: str | None, ngram_tokens: int) -> dict[str, Any]:
    """The overlap report of a source's train split with its own val split, or with that of another source."""
    train = open_any(name)
    held = train if against is None else open_any(against)
    tokenizer = _tokenizer_of(held)
    mine, others = ((source.manifest.get("tokenizer") or {}).get("sha256") for source in (train, held))
    if mine != others:
        raise PicoError(f"{name} and {against} were prepared with different tokenizers", "prepare both with one --tokenizer")
    end = None if tokenizer is None else tokenizer.end_of_text_id
    size = int(train.manifest["vocab_size"])
    val = held.split("val")
    found = measure_overlap(train.split("train"), val, end_of_text_id=end, vocab_size=size, ngram_tokens=ngram_tokens)
    examples = [
        {"row": row, "place": place, "text": _text_at(val.read(numpy.array([row]))[0][place : place + ngram_tokens], tokenizer)}
        for row, place in found.examples
    ]
    return {**vars(found), "share": found.share, "examples": examples}


def _text_at(tokens: Rows, tokenizer: TextTokenizer | None) -> str:
    return tokenizer.decode(tokens) if tokenizer is not None else " ".join(map(str, tokens))


def open_any(name: str) -> PreparedData:
    """Prepared data in a folder, behind a URL or on the Hub."""
    source = open_source(name, {})
    if not isinstance(source, PreparedData):
        raise PicoError(f"{name} is not prepared data", "name a prepared folder, or the URL or Hub name of one")
    return source


def measure_split(name: str, split: str, top: int) -> dict[str, Any]:
    """Token frequencies, lengths of documents and documents per row of a split, over all its rows."""
    data = open_any(name)
    rows = data.split(split)
    counts = numpy.zeros(int(data.manifest["vocab_size"]), dtype=numpy.int64)
    end = (data.manifest["tokenizer"] or {}).get("end_of_text_id")
    ends_per_row = []
    for tokens_BT in _blocks(data, split):
        counts += numpy.bincount(tokens_BT.reshape(-1), minlength=len(counts))
        if end is not None:
            ends_per_row.append((tokens_BT == end).sum(axis=1))
    tokenizer = _tokenizer_of(data)
    shares = counts / counts.sum()
    facts = data.manifest["splits"][split]
    used = shares[shares > 0]
    return {
        "rows": rows.rows,
        "row_length": rows.row_length,
        "tokens": int(counts.sum()),
        "documents": int(facts.get("documents", 0)),
        "tokens_used": int((counts > 0).sum()),
        "vocab_size": len(counts),
        "unigram_entropy_nats": float(-(used * numpy.log(used)).sum()),
        "document_lengths": facts.get("document_lengths", {"n": 0}),
        "documents_per_row": _summary(numpy.concatenate(ends_per_row) if ends_per_row else numpy.empty(0)),
        "most_frequent": [
            {"id": int(id), "token": tokenizer.token(int(id)) if tokenizer else str(id), "share": float(shares[id])}
            for id in numpy.argsort(-counts, kind="stable")[:top]
        ],
    }


def _blocks(data: PreparedData, split: str) -> Iterator[Rows]:
    rows = data.split(split)
    for start in range(0, rows.rows, BLOCK_ROWS):
        yield rows.read(numpy.arange(start, min(start + BLOCK_ROWS, rows.rows)))


def _summary(values: numpy.ndarray[Any, Any]) -> dict[str, float]:
    if not len(values):
        return {"n": 0}
    low, middle, high = numpy.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {
        "n": len(values),
        "mean": round(float(values.mean()), 3),
        "p5": low,
        "median": middle,
        "p95": high,
        "max": int(values.max()),
    }


def find_damage(folder: Path) -> list[str]:
    """One sentence for each thing in a prepared folder that is not as its manifest says."""
    data = open_prepared(folder)
    problems = []
    if folder_fingerprint(data.manifest) != data.fingerprint:
        problems.append("manifest.json has been edited: its fingerprint does not fit its shards")
    problems += _tokenizer_damage(data)
    for split in data.splits:
        for shard in shards_of(data.manifest, split, str(folder)):
            problem = _shard_damage(data, shard)
            problems += [f"{shard.name}: {problem}"] if problem else []
    return problems


def _tokenizer_damage(data: PreparedData) -> list[str]:
    described = data.manifest["tokenizer"]
    if described is None:
        return []
    if data.tokenizer_file is None:
        return ["tokenizer.json is missing"]
    return [] if hash_file(data.tokenizer_file).sha256 == described["sha256"] else ["tokenizer.json has changed"]


def _shard_damage(data: PreparedData, shard: ShardRecord) -> str | None:
    try:
        path = data.files.local(shard)
        if hash_file(path).sha256 != shard.sha256:
            return "its SHA-256 is not that of the manifest"
        tokens_BT = read_shard(path, row_length=data.row_length, vocab_size=int(data.manifest["vocab_size"]))
    except PicoError as error:
        return error.message
    if len(tokens_BT) != shard.rows:
        return f"it has {len(tokens_BT):,} rows, the manifest says {shard.rows:,}"
    decoded = data.decoded()
    if decoded.is_here(shard) and not numpy.array_equal(decoded.rows_of(shard), tokens_BT):
        return f"its decoded copy {decoded.file_of(shard)} differs from it; delete that file"
    return None
