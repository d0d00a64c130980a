"""What training methods cost beside plain training, and what caching saves in the inner loop of MAML. See README.md.

    python benchmarks/methods/compare.py [--rounds 5] [--width 96] [--json FILE]

Every contender sits warm in a process of its own; turns are interleaved in alternating order, and medians compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from turns import Contender, take_turns

WORKER = Path(__file__).with_name("worker.py")
EPISODES = {"name": "maml", "ways": 32, "support": 4, "query": 4, "episodes": 1, "buffer_sequences": 2048}
ON_EPISODES = {**EPISODES, "episode_share": 1.0}
PUBLISHED = {"name": "maml", "variant": "published", "ways": 32, "support": 4, "episode_share": 1.0, "buffer_sequences": 2048}
CONTENDERS: dict[str, dict[str, Any]] = {
    "plain": {"task": "steps", "method": "plain"},
    "relora, rank 16": {"task": "steps", "method": {"name": "relora", "rank": 16, "warm_start_share": 0.0}},
    "maml, update on text": {"task": "steps", "method": {**EPISODES, "episode_share": 0.0}},
    "maml, update on one episode": {"task": "steps", "method": ON_EPISODES},
    "maml published, update on one episode": {"task": "steps", "method": PUBLISHED},
    "inner loop, features cached": {"task": "inner", "method": ON_EPISODES},
    "inner loop, features recomputed": {"task": "inner", "method": ON_EPISODES, "repeated": True},
    "episode, features cached": {"task": "episode", "method": ON_EPISODES},
    "episode, features recomputed": {"task": "episode", "method": ON_EPISODES, "repeated": True},
}
AGAINST = {
    "inner loop, features recomputed": "inner loop, features cached",
    "episode, features recomputed": "episode, features cached",
}


def main() -> None:
    arguments = parsed_arguments()
    cell = {name: value for name, value in vars(arguments).items() if name not in ("rounds", "only", "json")}
    names = [name for name in CONTENDERS if not arguments.only or any(part in name for part in arguments.only)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(cell["threads"])}
    with tempfile.TemporaryDirectory() as logs:
        commands = {name: [sys.executable, str(WORKER), json.dumps(CONTENDERS[name]), json.dumps(cell)] for name in names}
        contenders = take_turns(commands, arguments.rounds, logs=Path(logs), env=environment)
    rows = [row_of(name, contenders, cell["steps"]) for name in names]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:6.2f} x {row['against']}"
        print(f"{row['name']:<40}{row['seconds'] * 1000:9.1f} ms {row['peak_mib']:8.0f} MiB  {ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"cell": cell, "rows": rows}, indent=1))


def row_of(name: str, contenders: dict[str, Contender], steps: int) -> dict[str, Any]:
    """Median seconds of one update, inner loop or episode; against what it is compared with, as the median of ratios by round."""
    against = AGAINST.get(name, "plain" if CONTENDERS[name]["task"] == "steps" and name != "plain" else None)
    other = contenders.get(against) if against else None
    pairs = [] if other is None else [mine / theirs for mine, theirs in zip(contenders[name].elapsed, other.elapsed, strict=True)]
    per_turn = steps if CONTENDERS[name]["task"] == "steps" else 1
    return {
        "name": name,
        "seconds": contenders[name].seconds / per_turn,
        "processor_seconds": contenders[name].processor_seconds / per_turn,
        "peak_mib": contenders[name].peak_mib,
        "against": against,
        "ratio": statistics.median(pairs) if pairs else None,
    }


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="updates in a turn")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of contenders")
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
