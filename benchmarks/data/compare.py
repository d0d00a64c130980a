"""Times reading, preparing and seeking against peers, each contender in its own process, rounds interleaved. See README.md."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

SHARD_ROWS, ROW_LENGTH, VOCABULARY, BATCH = 2_048, 2_049, 50_280, 64
LOADERS = ("picolm first time", "picolm", "datasets lists", "datasets torch")
PREPARERS = ("picolm prepare", "tokenizers")


def write_rows(folder: Path, shards: int) -> None:
    """A prepared folder of random rows with the frequencies of text (Zipf)."""
    from picolm.data.parquet import write_shard
    from picolm.records.manifest import hash_file
    from picolm.records.prepared import PreparedFolder, shard_name, write_manifest

    prepared, chosen, records = PreparedFolder(folder), numpy.random.default_rng(0), []
    ends = numpy.cumsum(1 / numpy.arange(1, VOCABULARY + 1))
    for number in range(shards):
        tokens_BT = numpy.searchsorted(ends / ends[-1], chosen.random((SHARD_ROWS, ROW_LENGTH))).astype(numpy.uint16)
        path = prepared.shard(shard_name("train", number, shards))
        write_shard(path, tokens_BT)
        records.append({"name": path.relative_to(folder).as_posix(), "rows": SHARD_ROWS, **vars(hash_file(path))})
    split = {"rows": shards * SHARD_ROWS, "tokens": shards * SHARD_ROWS * ROW_LENGTH, "shards": records}
    write_manifest(prepared, {"row_length": ROW_LENGTH, "vocab_size": VOCABULARY, "tokenizer": None, "splits": {"train": split}})


def read_ours(folder: Path, *, first_time: bool) -> Callable[[], int]:
    """Every batch of an epoch from our loader; the first time includes decoding the shards."""
    from picolm.data.loader import BatchLoader
    from picolm.data.sources import open_prepared

    data = open_prepared(folder)
    if first_time:
        shutil.rmtree(data.cache, ignore_errors=True)
    loader = BatchLoader(data.split("train"), batch_sequences=BATCH, seed=0)
    steps = data.split("train").rows // BATCH
    return lambda: sum(batch.tokens_BT.numel() for batch in loader.prefetched(0, steps))


def read_lists(folder: Path) -> Callable[[], int]:
    """The same parquet streamed by `datasets` as Python lists, collated to tensors, as the original trainer does."""
    import datasets
    import torch

    files = sorted(map(str, folder.glob("train/*.parquet")))
    table = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)

    def read() -> int:
        seen, batch = 0, []
        for row in table:
            batch.append(row["input_ids"])
            if len(batch) == BATCH:
                seen += torch.tensor(batch, dtype=torch.long).numel()
                batch = []
        return seen

    return read


def read_torch(folder: Path) -> Callable[[], int]:
    """The same parquet in the torch format of `datasets`, read in batches; its Arrow copy is made before the clock starts."""
    import datasets

    files = sorted(map(str, folder.glob("train/*.parquet")))
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / ".datasets"))
    return lambda: sum(batch["input_ids"].numel() for batch in table.with_format("torch").iter(BATCH, drop_last_batch=True))


def prepare_ours(sources: Path) -> Callable[[], int]:
    """`pico data prepare` from text to shards on disk."""
    from picolm.data.prepare import PrepareSettings, prepare
    from picolm.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(sources / "tokenizer.json")

    def run() -> int:
        with tempfile.TemporaryDirectory(dir=sources) as out:
            text = str(sources / "text.jsonl")
            data = prepare([text], tokenizer=tokenizer, out=Path(out, "data"), settings=PrepareSettings(), workers=2)
            return int(data.manifest["splits"]["train"]["tokens"])

    return run


def tokenize_directly(sources: Path) -> Callable[[], int]:
    """The tokenizer alone on all cores: the texts are in memory, nothing is kept but the count."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(sources / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in (sources / "text.jsonl").open(encoding="utf-8")]

    def run() -> int:
        count = len(texts)
        for start in range(0, len(texts), 256):
            count += sum(map(len, tokenizer.encode_batch_fast(texts[start : start + 256], add_special_tokens=False)))
        return count

    return run


def contend(contender: str, folder: Path) -> dict[str, float]:
    """Run one contender in this process."""
    makers: dict[str, Callable[[], Callable[[], int]]] = {
        "picolm first time": lambda: read_ours(folder, first_time=True),
        "picolm": lambda: read_ours(folder, first_time=False),
        "datasets lists": lambda: read_lists(folder),
        "datasets torch": lambda: read_torch(folder),
        "picolm prepare": lambda: prepare_ours(folder),
        "tokenizers": lambda: tokenize_directly(folder),
    }
    import pyarrow.parquet  # loaded before the clock starts, for all alike
    import torch

    assert pyarrow.parquet and torch
    work = makers[contender]()
    start = time.perf_counter()
    tokens = work()
    return {"tokens": tokens, "seconds": time.perf_counter() - start}


def measure(contenders: tuple[str, ...], folder: Path, rounds: int) -> dict[str, float]:
    """Median tokens per second of each contender."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in contenders:
            command = [sys.executable, __file__, "--contender", name, "--folder", str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            rates[name].append(result["tokens"] / result["seconds"])
    return {name: statistics.median(values) for name, values in rates.items()}


def measure_seek() -> dict[str, float]:
    """Microseconds to find one row, and the rows of one step, and their shards, at global row 10^9 of 10,000 shards."""
    from picolm.data.order import IdentityOrder, PermutedOrder

    ends = numpy.cumsum(numpy.full(10_000, 20_480))
    rows = int(ends[-1])
    result = {}
    for name, order in (("in order", IdentityOrder(rows)), ("permuted", PermutedOrder(rows, 42))):
        for count in (1, 1024):
            asked, times = 10**9 + numpy.arange(count), []
            for _ in range(200):
                start = time.perf_counter()
                numpy.searchsorted(ends, order.rows_at(asked), side="right")
                times.append(time.perf_counter() - start)
            result[f"seek to row 10^9, {name}, {count} rows"] = statistics.median(times) * 1e6
    return result


def write_text(folder: Path, source: Path | None, megabytes: int) -> None:
    """Text and tokenizer for the preparers: real ones if `source` has them, else the synthetic language."""
    from picolm.data.synthetic import synthesize
    from picolm.data.tokenizer import train_tokenizer

    if source is None:
        synthesize(folder / "language", documents=megabytes * 4_400, seed=0, pairs=0)
        text = folder / "language" / "train.jsonl"
        with text.open() as lines:
            train_tokenizer((json.loads(line)["text"] for line in lines), folder / "tokenizer.json", vocab_size=4096)
        content = text.read_bytes()
    else:
        shutil.copy(source / "data/tokenizer/gpt-neox-olmo-dolma-v1_5.json", folder / "tokenizer.json")
        content = (source / "data/corpus_books/train.jsonl").read_bytes()
    with (folder / "text.jsonl").open("wb") as file:
        while file.tell() < megabytes << 20:
            file.write(content)


def main() -> None:
    """Measure everything and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=32, help="shards of 2,048 rows of 2,049 tokens to read")
    parser.add_argument("--megabytes", type=int, default=64, help="text to prepare")
    parser.add_argument("--source", type=Path, help="has data/corpus_books and data/tokenizer; default: synthetic text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(contend(options.contender, options.folder)))
        return
    with tempfile.TemporaryDirectory() as place:
        rows, text = Path(place, "rows"), Path(place, "text")
        text.mkdir()
        write_rows(rows, options.shards)
        write_text(text, options.source, options.megabytes)
        figures: dict[str, Any] = measure(LOADERS, rows, options.rounds) | measure(PREPARERS, text, options.rounds)
    figures["loader / datasets lists"] = figures["picolm"] / figures["datasets lists"]
    figures["loader, first time / datasets lists"] = figures["picolm first time"] / figures["datasets lists"]
    figures["loader / datasets torch"] = figures["picolm"] / figures["datasets torch"]
    figures["prepare / tokenizers"] = figures["picolm prepare"] / figures["tokenizers"]
    figures |= measure_seek()
    for name, value in figures.items():
        unit = "us" if name.startswith("seek") else "x" if "/" in name else "tokens/s"
        print(f"{name:<48}{value:>16,.2f} {unit}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
