"""What the examples that draw a figure of the paper share: arms on the same text, trained one after the other by `pico train`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from picolm.base.config import read_yaml
from picolm.data.demo import prepare_demo_data


def parsed_arguments(description: str, out: str) -> argparse.Namespace:
    """`out`: the folder that everything goes into by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for data, runs and the figure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of every arm")
    return parser.parse_args()


def make_data(folder: Path, training_file: Path, settings: list[str], vocab_size: int) -> None:
    """Text of the built-in language, enough for every update of the training file, or of `training.max_steps`; made once."""
    if folder.is_dir():
        return
    config = read_yaml(training_file)
    row_length = config["model"]["max_seq_len"] + 1
    steps = next((int(text.partition("=")[2]) for text in settings if text.startswith("training.max_steps=")), None)
    rows = (steps or config["training"]["max_steps"]) * config["data"]["dataloader"]["batch_size"]
    prepare_demo_data(
        folder, seed=42, train_tokens=rows * row_length, vocab_size=vocab_size, row_length=row_length, val_tokens=20_000
    )


def train(arm: str, training_file: Path, out: Path, changes: Mapping[str, Any], settings: list[str]) -> None:
    """Train an arm, or continue it, in a process of its own; what it says goes to `<arm>.txt`.

    `changes`: setting -> value, beside the places of data and runs in `out`. `settings`: overrides of the command line.
    """
    here = {
        "data.dataset.name": str(out / "data"),
        "checkpointing.runs_dir": str(out / "runs"),
        "checkpointing.run_name": arm,
        "training.online_analysis.file": str(training_file.parent / "dynamics.yaml"),
    }
    given = [f"{key}={value}" for key, value in here.items()]
    given += [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    command = [sys.executable, "-m", "picolm.cli.main", "train", str(training_file)]
    for setting in given + settings:
        command += ["--set", setting]
    with (out / f"{arm}.txt").open("w") as said:
        subprocess.run(command, check=True, stderr=said, stdout=said, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Keep the numbers that the README quotes, print them, and say where the figure is."""
    text = json.dumps(summary, indent=1)
    (out / "summary.json").write_text(text + "\n")
    print(text)
    print(f"figure: {out / 'figure.svg'}")
