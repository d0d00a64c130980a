"""Train three arms, measure their dynamics inside the loop, and draw the panels of the paper's Figure 2.

    python examples/maml_figure_2/run.py [--out maml_figure_2] [--set training.max_steps=100]

Writes data, runs, `figure.svg` and `summary.json` into the folder. Repeat the command to continue where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
from phases import turning_points

import picolm
from picolm.base.config import read_yaml
from picolm.data.demo import prepare_demo_data

HERE = Path(__file__).parent
ARMS = ("plain", "published", "specified")


def main() -> None:
    """Data, runs, figure and summary."""
    arguments = parsed_arguments()
    out: Path = arguments.out
    make_data(out / "data", arguments.set)
    for arm in ARMS:
        train(arm, out, arguments.set)
    curves, phases = gather(out)
    summary = summarise(out, curves, phases)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(curves, phases, out / "figure.svg")
    print(json.dumps(summary, indent=1))
    print(f"figure: {out / 'figure.svg'}")


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("maml_figure_2"), help="folder for data, runs and the figure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of every arm")
    return parser.parse_args()


def make_data(folder: Path, settings: list[str]) -> None:
    """Text of the built-in language, enough for every update of the longest run; made once."""
    if folder.is_dir():
        return
    config = read_yaml(HERE / "plain.yaml")
    row_length = config["model"]["max_seq_len"] + 1
    steps = next((int(text.partition("=")[2]) for text in settings if text.startswith("training.max_steps=")), None)
    rows = (steps or config["training"]["max_steps"]) * config["data"]["dataloader"]["batch_size"]
    prepare_demo_data(folder, seed=42, train_tokens=rows * row_length, vocab_size=500, row_length=row_length, val_tokens=20_000)


def train(arm: str, out: Path, settings: list[str]) -> None:
    """Train one arm, or continue it, in a process of its own: `pico train`."""
    data = str(out / "data")
    paths = {
        "data.dataset.name": data,
        "checkpointing.runs_dir": str(out / "runs"),
        "checkpointing.learning_dynamics.eval_data": data,
        "training.online_analysis.file": str(HERE / "dynamics.yaml"),
        "evaluation.metrics": json.dumps([{"name": "perplexity", "data": data, "every_n_steps": 25}]),
    }
    given = [f"{key}={value}" for key, value in paths.items()] + settings
    command = [sys.executable, "-m", "picolm.cli.main", "train", str(HERE / f"{arm}.yaml")]
    for setting in given:
        command += ["--set", setting]
    with (out / f"{arm}.txt").open("w") as said:
        subprocess.run(command, check=True, stderr=said, stdout=said, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def gather(out: Path) -> tuple[pandas.DataFrame, dict[str, list[int]]]:
    """One row per arm, panel, curve and step; and where the phases of each arm end."""
    pieces, phases = [], {}
    for arm in ARMS:
        run = picolm.open_run(out / "runs" / arm)
        log = run.log()
        pieces.append(curve(log, arm, "loss (nats)", "training", "loss"))
        if "query_loss_after" in log:
            pieces.append(curve(log, arm, "loss (nats)", "episodes, before adaptation", "query_loss_before"))
            pieces.append(curve(log, arm, "loss (nats)", "episodes, after adaptation", "query_loss_after"))
        rows = run.rows("dynamics")
        rows = rows[rows["value"].notna()]
        for (kind, split), found in rows.groupby(["data_type", "split"]):
            by_step = found.groupby("step")["value"].mean().reset_index()
            name = "of weights" if kind == "weights" else {"train": "of the update", "val": "of the language model"}[split]
            pieces.append(curve(by_step, arm, f"PER of {kind}", name, "value"))
            if split == "val":
                phases[arm] = turning_points(by_step["step"].to_numpy(), by_step["value"].to_numpy())
    return pandas.concat(pieces, ignore_index=True), phases


def curve(table: pandas.DataFrame, arm: str, panel: str, name: str, column: str) -> pandas.DataFrame:
    known = table[["step", column]].dropna().rename(columns={column: "value"})
    return known.assign(arm=arm, panel=panel, curve=name)


def summarise(out: Path, curves: pandas.DataFrame, phases: dict[str, list[int]]) -> dict[str, Any]:
    """The numbers that the README quotes."""
    summary: dict[str, Any] = {}
    for arm in ARMS:
        run = picolm.open_run(out / "runs" / arm)
        log, scores = run.log(), run.scores()
        held_out = scores[scores["measure"] == "loss_per_token"].sort_values("step")
        last = log.iloc[-1]
        facts = {
            "steps": int(last["step"]),
            "language_model_tokens": int(last["tokens"]),
            "episode_tokens": int(last["method_tokens"]),
            "flops": float(last["flops"]),
            "held_out_loss": round(float(held_out["value"].iloc[-1]), 4),
            "training_seconds": round(float(log["step_seconds"].sum()), 1),
            "phases_end_at": phases[arm],
        }
        if "adaptation_gain" in log:
            end = log.tail(len(log) // 4)
            for name in ("adaptation_gain", "query_accuracy_before", "query_accuracy_after", "majority_accuracy", "ways"):
                facts[f"{name}_last_quarter"] = round(float(end[name].mean()), 4)
        summary[arm] = facts
    return summary


def draw(curves: pandas.DataFrame, phases: dict[str, list[int]], path: Path) -> None:
    """Three columns of panels, one for each arm; the phases shaded."""
    import altair

    last = int(curves["step"].max())
    columns = []
    for arm in ARMS:
        own, ends = curves[curves["arm"] == arm], [0, *phases[arm], last]
        spans = pandas.DataFrame({"from": ends[:-1], "to": ends[1:], "phase": [f"phase {n}" for n in range(1, len(ends))]})
        shade = (
            altair.Chart(spans)
            .mark_rect(opacity=0.25)
            .encode(
                x="from:Q",
                x2="to:Q",
                color=altair.Color("phase:N", scale=altair.Scale(range=["#d9e6f2", "#f5ead2", "#e3efdc"]), legend=None),
            )
        )
        panels = []
        for panel in ("loss (nats)", "PER of weights", "PER of gradients"):
            everywhere = curves.loc[curves["panel"] == panel, "value"]
            scale = altair.Scale(domain=[float(everywhere.min()), float(everywhere.max())], zero=False, nice=False)
            lines = (
                altair.Chart(own[own["panel"] == panel])
                .mark_line(strokeWidth=1)
                .encode(
                    x=altair.X("step:Q", title="update", scale=altair.Scale(domain=[0, last], nice=False)),
                    y=altair.Y("value:Q", title=panel, scale=scale),
                    stroke=altair.Stroke("curve:N", title=None, scale=altair.Scale(scheme="dark2")),
                )
            )
            panels.append(altair.layer(shade, lines).properties(width=230, height=120))
        columns.append(altair.vconcat(*panels, title=arm))
    chart = altair.hconcat(*columns).resolve_scale(color="independent")
    chart.save(str(path))


if __name__ == "__main__":
    main()
