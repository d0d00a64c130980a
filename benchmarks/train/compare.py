"""Training with picolm against transformers' Trainer, litgpt and a bare loop around our decoder.

    python benchmarks/train/compare.py [--cells tiny-512 tiny-2048 small-512 overhead checkpoint] [--rounds 5]

Same shape, rows, batch, optimiser and precision; each contender in its own process (litgpt in an environment of its own, made
on first use), all of them warm before the first turn, turns interleaved in alternating order, medians compared. A step lasts
from one update to the next (`contenders.py`). `overhead` trains a width of 16, where the loop is nearly all there is, and sets
what ours takes beyond the bare loop against a tiny step. `checkpoint` times the steps at which ours seals a checkpoint with
learning dynamics.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from turns import Contender, take_turns  # noqa: E402 - lies beside the folders of the single benchmarks

LITGPT = HERE.parents[1] / "build" / "benchmarks" / "litgpt"
LITGPT_REQUIREMENTS = ("torch==2.13.0", "litgpt==0.5.13", "lightning>=2.6.6")
"""lightning 2.6.2 and 2.6.3 were compromised releases."""
DECODER = {"n_layers": 12, "attention_n_heads": 12, "attention_n_kv_heads": 4, "vocab_size": 50304}
SHAPES = {
    "tiny": {**DECODER, "d_model": 96, "activation_hidden_dim": 384},
    "small": {**DECODER, "d_model": 384, "activation_hidden_dim": 1536},
    "narrow": {
        "n_layers": 2,
        "attention_n_heads": 2,
        "attention_n_kv_heads": 1,
        "vocab_size": 320,
        "d_model": 16,
        "activation_hidden_dim": 32,
    },
}
PEERS = ("transformers", "litgpt")


@dataclass(frozen=True)
class Cell:
    """One comparison: everything a contender is told."""

    shape: str
    model: dict[str, int]
    precision: str
    compiled: bool
    length: int
    sequences: int
    steps_per_turn: int
    warm_up: int
    threads: int
    data: str
    """The prepared folder."""
    shards: list[str]
    """Its parquet files."""
    rows: str
    """The same rows as one array."""

    @property
    def name(self) -> str:
        mode = "compiled" if self.compiled else "eager"
        return f"{self.shape:6} {self.precision} {mode:8} {self.sequences} x {self.length}"


# ---- The rows ----


def write_rows(folder: Path, length: int, tokens: int = 200_000) -> dict[str, Any]:
    """Prepared rows of random words with a few for the val split, and the rows as an array; what a `Cell` says of them."""
    import numpy

    from picolm.data.contract import open_source
    from picolm.data.prepare import PrepareSettings, prepare
    from picolm.data.tokenizer import train_tokenizer

    draw = random.Random(0)
    words = ["the", "cat", "dog", "bird", "sees", "likes", "hears", "big", "small", "red", "that", "runs", "and"]
    documents = [" ".join(draw.choice(words) for _ in range(400)) + "." for _ in range(tokens // 400)]
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(documents))
    (folder / "val.txt").write_text("\n".join(documents[-20:]))
    tokenizer = train_tokenizer(iter(documents[:100]), folder / "tokenizer", vocab_size=300)
    data = folder / "data"
    sources, held_out = [str(folder / "train.txt")], [str(folder / "val.txt")]
    prepare(sources, tokenizer=tokenizer, out=data, settings=PrepareSettings(max_seq_len=length), val_sources=held_out)
    split = open_source(str(data), {}).split("train")
    numpy.save(folder / "rows.npy", split.read(numpy.arange(split.rows)))
    shards = sorted(str(path) for path in (data / "train").glob("*.parquet"))
    return {"data": str(data), "shards": shards, "rows": str(folder / "rows.npy")}


# ---- One cell ----


def compare(cell: Cell, contenders: list[str], rounds: int) -> dict[str, Contender]:
    """Every contender in turns of `cell.steps_per_turn` steps."""
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / "cell.json"
        description.write_text(json.dumps(asdict(cell)))
        commands = {name: [_python(name), str(HERE / "contenders.py"), name, str(description)] for name in contenders}
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cell.threads)}
        return take_turns(commands, rounds, logs=Path(folder), env=environment, cwd=folder)


def _python(name: str) -> str:
    return str(LITGPT / "bin" / "python") if name == "litgpt" else sys.executable


def make_litgpt_environment() -> None:
    """An environment for litgpt, whose pins are older than ours."""
    stamp = LITGPT / "requirements.txt"
    wanted = "\n".join(LITGPT_REQUIREMENTS)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"making {LITGPT}", flush=True)
    venv.create(LITGPT, with_pip=True, clear=True)
    # torch first and alone: where a build without CUDA is on offer, what follows then keeps it
    for requirements in (LITGPT_REQUIREMENTS[:1], LITGPT_REQUIREMENTS):
        subprocess.run([LITGPT / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True)
    stamp.write_text(wanted)


# ---- The table ----


def speed_cells(asked: argparse.Namespace, rows: dict[int, dict[str, Any]]) -> list[Cell]:
    """The cells against the peers. Where the processor lacks bfloat16 instructions the peers emulate them: fewer tokens there."""
    import torch

    from picolm.model.precision import cpu_multiplies

    cells = []
    for shape, length in (name.split("-") for name in asked.cells if "-" in name):
        for precision in asked.precisions:
            emulated = precision == "bf16" and not cpu_multiplies(torch.bfloat16)
            tokens = asked.tokens // (2 if shape == "small" else 1) // (4 if emulated else 1)
            for mode in asked.modes:
                cut = min(int(length), tokens)
                cells.append(
                    Cell(
                        shape=shape,
                        model=SHAPES[shape],
                        precision=precision,
                        compiled=mode == "compiled",
                        length=cut,
                        sequences=tokens // cut,
                        steps_per_turn=1,
                        warm_up=3,
                        threads=asked.threads,
                        **rows[cut],
                    )
                )
    return list({cell.name: cell for cell in cells}.values())  # rows cut to fewer tokens can make two cells alike


def report(cell: Cell, measured: dict[str, Contender]) -> dict[str, tuple[float, float]]:
    """Print a line; the ratios of elapsed and processor time to each contender."""
    tokens = cell.sequences * cell.length * cell.steps_per_turn
    facts = [f"{name} {tokens / each.seconds:7.0f} tokens/s {each.peak_mib:5.0f} MiB" for name, each in measured.items()]
    ours = measured["ours"]
    others = {name: each for name, each in measured.items() if name != "ours"}
    ratios = {
        name: (each.seconds / ours.seconds, each.processor_seconds / ours.processor_seconds) for name, each in others.items()
    }
    against = ", ".join(f"x{elapsed:.2f} (processor x{busy:.2f}) of {name}" for name, (elapsed, busy) in ratios.items())
    print(f"{cell.name} | {' | '.join(facts)} | {against}", flush=True)
    return ratios


def summarise(ratios: list[tuple[Cell, dict[str, tuple[float, float]]]]) -> None:
    """Geometric means of the ratios to the peers: all cells, the compiled ones, the worst."""
    for clock, title in enumerate(("elapsed time", "processor time")):
        for chosen_title, compiled_only in (("all cells", False), ("compiled cells", True)):
            chosen = [
                r[peer][clock] for cell, r in ratios for peer in PEERS if peer in r and (cell.compiled or not compiled_only)
            ]
            if chosen:
                mean = math.exp(statistics.fmean(map(math.log, chosen)))
                worst = f"worst x{min(chosen):.2f}"
                print(f"{title}, {chosen_title}, both peers: geometric mean x{mean:.2f} over {len(chosen)}, {worst}")


def measure_overhead(asked: argparse.Namespace, folder: Path) -> None:
    """What the loop costs per step, set against a tiny step of 4 x 512 tokens."""
    # the tiny rows first: contenders of both cells must not run beside each other
    tiny = Cell("tiny", SHAPES["tiny"], "fp32", False, 512, 4, 1, 3, asked.threads, **write_rows(folder / "tiny", 512))
    narrow = Cell("narrow", SHAPES["narrow"], "fp32", False, 16, 8, 100, 30, asked.threads, **write_rows(folder / "narrow", 16))
    tiny_seconds = compare(tiny, ["bare loop"], asked.rounds)["bare loop"].seconds
    measured = compare(narrow, ["ours", "bare loop"], asked.rounds)
    seconds = {name: each.seconds / narrow.steps_per_turn for name, each in measured.items()}
    overhead = seconds["ours"] - seconds["bare loop"]
    milliseconds = {name: 1000 * each for name, each in seconds.items()}
    print(
        f"overhead of the loop: {1000 * overhead:.2f} ms a step at width 16 (ours {milliseconds['ours']:.2f}, bare loop "
        f"{milliseconds['bare loop']:.2f}); {overhead / tiny_seconds:.2%} of a tiny step of {tiny_seconds:.2f} s (to reach: 3%)"
    )


def measure_checkpoint(asked: argparse.Namespace, folder: Path) -> None:
    """How long a checkpoint with learning dynamics keeps the loop, in ordinary steps."""
    data = write_rows(folder / "checkpoint", 512)["data"]
    command = [sys.executable, str(HERE / "checkpoint.py"), data, str(folder / "runs"), json.dumps(SHAPES["tiny"])]
    subprocess.run([*command, str(asked.threads)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["tiny-512", "tiny-2048", "small-512", "overhead", "checkpoint"]
    parser.add_argument("--cells", nargs="+", default=every, choices=every)
    parser.add_argument("--contenders", nargs="+", default=["ours", "transformers", "litgpt", "bare loop"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=["eager", "compiled"])
    parser.add_argument("--tokens", type=int, default=2048, help="a step of tiny; small takes half, emulated bf16 a quarter")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if "litgpt" in asked.contenders:
        make_litgpt_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = (128, 256, 512, 2048) if set(asked.cells) & set(every[:3]) else ()
        rows = {length: write_rows(folder / str(length), length) for length in lengths}
        ratios = [(cell, report(cell, compare(cell, asked.contenders, asked.rounds))) for cell in speed_cells(asked, rows)]
        summarise(ratios)
        if "overhead" in asked.cells:
            measure_overhead(asked, folder)
        if "checkpoint" in asked.cells:
            measure_checkpoint(asked, folder)


if __name__ == "__main__":
    main()
