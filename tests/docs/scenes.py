"""What pages take for granted: a finished run, texts, somebody else's checkpoints. Made by the commands themselves, small."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from picolm.data.synthetic import LanguageSettings, build_language, synthesize

TOP = Path(__file__).parents[2]
STEPS = ["--set", "checkpointing.steps=0,1,100", "--set", "evaluation.metrics=[perplexity]"]


def pico(*words: str, folder: Path) -> None:
    """A command of ours, in a folder; it must succeed."""
    command = [sys.executable, "-m", "picolm.cli.main", *words]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr[-3000:]


def demo(folder: Path) -> None:
    """A project with a finished run `runs/demo` of steps 0, 1, 100 and 200, and the configurations that ship."""
    pico("new", ".", folder=folder)
    pico("train", "training.yaml", *STEPS, "--set", "checkpointing.run_name=demo", folder=folder)
    shutil.copytree(TOP / "configs", folder / "configs")


def variants(folder: Path) -> None:
    """Two variants of two seeds each, named as a comparison names them, beside `demo`."""
    for variant, changes in (("plain", []), ("noisy", ["--set", "training.method=./mine.py:NoisyGradient"])):
        for seed in (1, 2):
            name = f"checkpointing.run_name={variant}-{seed}"
            short = ["--set", "training.max_steps=10", "--set", "evaluation.metrics=null", "--set", f"training.seeds={seed}"]
            pico("train", "training.yaml", *short, *changes, "--set", name, folder=folder)


def texts(folder: Path) -> None:
    """Texts in the forms people have them: `texts/*.jsonl.gz`, `books/*.txt`, folders of domains, and a tokenizer."""
    synthesize(
        folder / "made", documents=2400, val_documents=200, pairs=5, seed=3, settings=build_language(LanguageSettings()).settings
    )
    documents = [json.loads(line)["text"] for line in (folder / "made" / "train.jsonl").read_text().splitlines()]
    for name in ("texts", "books", "domains", "dolma"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        some = documents[number::3]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in some).encode()
        (folder / "texts" / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(lines))
        (folder / "dolma" / f"part-{number}.json.gz").write_bytes(gzip.compress(lines))
        (folder / "books" / f"book-{number}.txt").write_text("\n\n".join(some))
    for domain in ("news", "fiction"):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents[:60])
        (folder / "domains" / f"{domain}.jsonl").write_text(lines)
    pico("data", "train-tokenizer", "made", "--vocab-size", "512", "--out", "tokenizer.json", folder=folder)


def series(folder: Path) -> None:
    """Checkpoints as somebody else would have saved them: plain Hugging Face folders `series/step<N>` with their tokenizer."""
    for step in (0, 1, 100):
        place = folder / "series" / f"step{step}"
        place.mkdir(parents=True)
        for file in (folder / "runs" / "demo" / "checkpoints" / f"step_{step}").iterdir():
            if file.is_file() and file.name not in ("manifest.json", "layout.json"):
                shutil.copy(file, place)


SCENES: dict[str, Callable[[Path], None]] = {"demo": demo, "variants": variants, "texts": texts, "series": series}
