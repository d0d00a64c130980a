"""A large input: memory stays below the bound, and a preparation killed again and again ends with the same bytes.

Takes many minutes, so it is not collected by itself: `pytest tests/data/large_input.py`. PICO_LARGE_MB sets the size (1024).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest

from picolm.data.tokenizer import train_tokenizer

MEGABYTES = int(os.environ.get("PICO_LARGE_MB", "1024"))
BOUND_BYTES = 1_500_000_000
KILLS = 5


class Outcome(NamedTuple):
    seconds: float
    peak_bytes: int


def write_text(path: Path, megabytes: int) -> None:
    """Documents of very different lengths over a Zipf vocabulary of 20,000 made-up words."""
    chosen = numpy.random.default_rng(11)
    letters = numpy.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = numpy.array(["".join(chosen.choice(letters, size)) for size in chosen.integers(2, 11, 20_000)])
    shares = 1 / numpy.arange(1, len(words) + 1)
    ends = numpy.cumsum(shares / shares.sum())
    with path.open("w") as file:
        while file.tell() < megabytes << 20:
            text = words[numpy.searchsorted(ends, chosen.random(400_000)).clip(max=len(words) - 1)].tolist()
            start = 0
            for size in chosen.lognormal(5, 1.2, 1_000).astype(int):
                file.write(json.dumps({"text": " ".join(text[start : start + size + 1]) + "."}) + "\n")
                start += size + 1


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("large")
    write_text(folder / "text.jsonl", MEGABYTES)
    with (folder / "text.jsonl").open() as lines:
        tokenizer = train_tokenizer(
            (json.loads(line)["text"] for _, line in zip(range(5_000), lines, strict=False)), folder / "t.json", vocab_size=4096
        )
    code = "from picolm.cli.data import app; app()"
    options = ["--tokenizer", str(tokenizer.file), "--max-seq-len", "512", "--val-share", "0.01"]
    return [sys.executable, "-c", code, "prepare", str(folder / "text.jsonl"), *options, "--out"]


def run(command: list[str], *, kill_after: float | None = None) -> Outcome:
    """The command in a process of its own, killed after some seconds if it is not done by then."""
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    if kill_after is not None:
        while time.monotonic() - began < kill_after and process.poll() is None:
            time.sleep(0.02)
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        return Outcome(time.monotonic() - began, 0)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Outcome(time.monotonic() - began, usage.ru_maxrss * 1024)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.timeout(0)
def test_memory_stays_bounded_and_five_kills_change_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = run([*command, str(tmp_path / "whole")])
    tokens = sum(facts["tokens"] for facts in json.loads((tmp_path / "whole/manifest.json").read_text())["splits"].values())
    with capsys.disabled():
        print(f"\n{MEGABYTES} MB, {tokens:,} tokens: {whole.seconds:.0f} s, peak {whole.peak_bytes / 1e6:,.0f} MB")
    assert whole.peak_bytes < BOUND_BYTES
    moments = random.Random(7)
    for number in range(KILLS):
        killed = run([*command, str(tmp_path / "out")], kill_after=whole.seconds * moments.uniform(0.02, 0.3))
        with capsys.disabled():
            print(f"kill {number + 1} after {killed.seconds:.1f} s, finished: {(tmp_path / 'out').exists()}")
    last = run([*command, str(tmp_path / "out")])
    assert last.peak_bytes < BOUND_BYTES
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "out"}
