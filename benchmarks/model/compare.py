"""Forward and backward of our decoder against transformers' `LlamaForCausalLM` with sdpa: `python benchmarks/model/compare.py`.

Each contender lives in its own process and does one step when told to. Rounds are interleaved, the order alternates, medians
are compared. Equal shapes, equal tokens; transformers gets torch's cross-entropy over its float32 logits. `minimal` is the
least code one would write: a causal decoder with a checkpointed, chunked loss. bf16 is autocast over float32 weights.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from turns import Contender, take_turns

SHAPES = {"tiny": (96, 384), "small": (384, 1536), "medium": (768, 3072)}
CONTENDERS = ("ours", "transformers", "minimal")
VOCABULARY, LAYERS, HEADS, KEY_VALUE_HEADS, LONGEST = 50304, 12, 12, 4, 2048


@dataclass(frozen=True)
class Cell:
    """One comparison: what is computed, and how."""

    shape: str
    precision: str
    compiled: bool
    length: int
    tokens: int

    @property
    def name(self) -> str:
        mode = "compiled" if self.compiled else "eager"
        return f"{self.shape:6} {self.precision:4} {mode:8} T={self.length:<4} {self.tokens:>5} tokens"


# ---- One contender ----


def work(contender: str, cell: Cell, threads: int) -> None:
    """Build and warm up, say so, then time one step for every line on stdin; last, the peak memory."""
    import torch

    from picolm.model.precision import cpu_multiplies

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows_BT = torch.randint(0, VOCABULARY, (cell.tokens // cell.length, cell.length + 1))
    tokens_BT, labels_BT = rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous()
    model, loss_of = BUILDERS[contender](cell)
    if cell.compiled:
        loss_of = torch.compile(loss_of)

    # as `pico train` does it: no autocast where it would only emulate (a compiled backward is traced under it)
    autocast = cell.precision == "bf16" and (contender != "ours" or cpu_multiplies(torch.bfloat16))

    def step() -> tuple[float, float]:
        started, busy = time.perf_counter(), time.process_time()
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(tokens_BT, labels_BT)
        (loss / cell.tokens).backward()
        return time.perf_counter() - started, time.process_time() - busy

    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*step(), flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


def build_ours(cell: Cell) -> tuple:
    import torch

    from picolm.model.contract import build_model
    from picolm.model.decoder import DecoderConfig

    width, hidden = SHAPES[cell.shape]
    model = build_model(DecoderConfig(d_model=width, activation_hidden_dim=hidden), torch.Generator().manual_seed(0))
    return model, lambda tokens_BT, labels_BT: model(tokens_BT, labels_BT=labels_BT)


def build_transformers(cell: Cell) -> tuple:
    import torch.nn.functional as F
    from transformers import LlamaConfig, LlamaForCausalLM

    width, hidden = SHAPES[cell.shape]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)

    def loss_of(tokens_BT, labels_BT):
        logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), reduction="sum")

    return model, loss_of


def build_minimal(cell: Cell) -> tuple:
    from minimal import MinimalDecoder

    width, hidden = SHAPES[cell.shape]
    model = MinimalDecoder(VOCABULARY, width, hidden, LAYERS, HEADS, KEY_VALUE_HEADS)
    return model, model


BUILDERS: dict[str, Callable[[Cell], tuple]] = {
    "ours": build_ours,
    "transformers": build_transformers,
    "minimal": build_minimal,
}


# ---- The comparison ----


def compare(cell: Cell, contenders: list[str], rounds: int, threads: int) -> dict[str, Contender]:
    """Step time and peak memory of each contender."""
    shape = [cell.shape, cell.precision, str(int(cell.compiled)), str(cell.length), str(cell.tokens), str(threads)]
    with tempfile.TemporaryDirectory() as logs:
        commands = {name: [sys.executable, __file__, "--work", name, *shape] for name in contenders}
        return take_turns(commands, rounds, logs=Path(logs))


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    import torch

    from picolm.model.precision import cpu_multiplies

    def tokens(shape: str, precision: str) -> int:
        slow = precision == "bf16" and not cpu_multiplies(torch.bfloat16)
        wanted = arguments.tokens // {"tiny": 1, "small": 2, "medium": 4}[shape]
        return wanted // (8 if slow and shape != "tiny" else 4 if slow else 1)

    return [
        Cell(shape, precision, mode == "compiled", min(length, tokens(shape, precision)), tokens(shape, precision))
        for shape in arguments.shapes
        for length in arguments.lengths
        for precision in arguments.precisions
        for mode in arguments.modes
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["tiny", "small"], choices=SHAPES)
    parser.add_argument("--lengths", nargs="+", type=int, default=[512])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"])
    parser.add_argument("--contenders", nargs="+", default=["ours", "transformers"], choices=CONTENDERS)
    parser.add_argument("--tokens", type=int, default=2048, help="a step of tiny; larger shapes and emulated bf16 take fewer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    ratios: list[tuple[Cell, float]] = []
    busy: list[tuple[Cell, float]] = []
    for cell in cells_of(arguments):
        measured = compare(cell, arguments.contenders, arguments.rounds, arguments.threads)
        ours = measured["ours"]
        facts = [f"{name} {cell.tokens / m.seconds:6.0f} tokens/s {m.peak_mib:5.0f} MiB" for name, m in measured.items()]
        against = [
            f"x{m.seconds / ours.seconds:.2f} of {name} (processor x{m.processor_seconds / ours.processor_seconds:.2f})"
            for name, m in measured.items()
            if name != "ours"
        ]
        print(f"{cell.name} | {' | '.join(facts)} | {', '.join(against)}", flush=True)
        if "transformers" in measured:
            theirs = measured["transformers"]
            ratios.append((cell, theirs.seconds / ours.seconds))
            busy.append((cell, theirs.processor_seconds / ours.processor_seconds))
    summarise("elapsed time", ratios)
    summarise("processor time", busy)


def summarise(clock: str, ratios: list[tuple[Cell, float]]) -> None:
    """Geometric means of the speed ratios to transformers: all cells, the compiled ones, and the worst."""
    for title, chosen in (("all cells", [r for _, r in ratios]), ("compiled", [r for cell, r in ratios if cell.compiled])):
        if chosen:
            mean = math.exp(statistics.fmean(math.log(r) for r in chosen))
            print(f"{clock}, {title}: geometric mean {mean:.2f} over {len(chosen)}, worst {min(chosen):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        sys.path.insert(0, str(Path(__file__).parent))
        name, shape, precision, compiled, length, tokens, threads = sys.argv[2:]
        work(name, Cell(shape, precision, bool(int(compiled)), int(length), int(tokens)), int(threads))
    else:
        main()
