"""Train at full rank and with ReLoRA, as published and as specified, and draw the panels of the paper's Figure 3.

    python examples/relora_figure_3/run.py [--out relora_figure_3] [--set training.max_steps=100]

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

import picolm
from picolm.base.config import read_yaml
from picolm.data.demo import prepare_demo_data

HERE = Path(__file__).parent
ARMS = read_yaml(HERE / "arms.yaml")
LAYERS = ("attention.v_proj", "attention.o_proj")
LOSS, TRAINING_LOSS, PAIRS, PER = "held-out loss (nats)", "training loss (nats)", "minimal pairs (accuracy)", "PER of weights"
CONDITION, RESOLVED = "condition number of updates: ", "above rounding: "
PANELS = (PAIRS, LOSS, *(CONDITION + layer for layer in LAYERS), *(RESOLVED + layer for layer in LAYERS), PER, TRAINING_LOSS)


def main() -> None:
    """Data, runs, figure and summary."""
    arguments = parsed_arguments()
    out: Path = arguments.out
    make_data(out / "data", arguments.set)
    for arm in ARMS:
        train(arm, out, arguments.set)
    curves = pandas.concat([curves_of(arm, out / "runs" / arm) for arm in ARMS], ignore_index=True)
    summary = {arm: summary_of(out / "runs" / arm) for arm in ARMS}
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(curves, resets(out), out / "figure.svg")
    print(json.dumps(summary, indent=1))
    print(f"figure: {out / 'figure.svg'}")


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("relora_figure_3"), help="folder for data, runs and the figure")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of every arm")
    return parser.parse_args()


def make_data(folder: Path, settings: list[str]) -> None:
    """Text of the built-in language, enough for every update; made once."""
    if folder.is_dir():
        return
    config = read_yaml(HERE / "plain.yaml")
    row_length = config["model"]["max_seq_len"] + 1
    steps = next((int(text.partition("=")[2]) for text in settings if text.startswith("training.max_steps=")), None)
    rows = (steps or config["training"]["max_steps"]) * config["data"]["dataloader"]["batch_size"]
    prepare_demo_data(folder, seed=42, train_tokens=rows * row_length, vocab_size=512, row_length=row_length, val_tokens=20_000)


def train(arm: str, out: Path, settings: list[str]) -> None:
    """Train one arm, or continue it, in a process of its own: `pico train`."""
    data = str(out / "data")
    evaluations = read_yaml(HERE / "plain.yaml")["evaluation"]["metrics"]
    here = [{**each, "data": data + each["data"].removeprefix("relora_figure_3/data")} for each in evaluations]
    changes = {
        "data.dataset.name": data,
        "checkpointing.runs_dir": str(out / "runs"),
        "checkpointing.run_name": arm,
        "training.online_analysis.file": str(HERE / "dynamics.yaml"),
        "evaluation.metrics": json.dumps(here),
        **{key: json.dumps(value) for key, value in ARMS[arm].items()},
    }
    command = [sys.executable, "-m", "picolm.cli.main", "train", str(HERE / "plain.yaml")]
    for setting in [f"{key}={value}" for key, value in changes.items()] + settings:
        command += ["--set", setting]
    with (out / f"{arm}.txt").open("w") as said:
        subprocess.run(command, check=True, stderr=said, stdout=said, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def curves_of(arm: str, folder: Path) -> pandas.DataFrame:
    """One row per panel and step. Layers are averaged; a condition number that is not defined is left out of the mean."""
    run = picolm.open_run(folder)
    log, scores, rows = run.log(), run.scores(), run.rows("dynamics")
    whole = scores[scores["group"] == "all"]
    pieces = [
        named(whole[whole["measure"] == "accuracy"], PAIRS),
        named(whole[whole["measure"] == "loss_per_token"], LOSS),
        named(log.rename(columns={"loss": "value"}), TRAINING_LOSS),
    ]
    for layer in LAYERS:
        updates = rows[(rows["data_type"] == "updates") & (rows["part"] == layer)]
        for panel, metric in ((CONDITION, "condition_number"), (RESOLVED, "condition_number_above_tolerance")):
            pieces.append(named(mean_over_layers(updates[updates["metric"] == metric]), panel + layer))
    weights = rows[(rows["data_type"] == "weights") & (rows["metric"] == "per")]
    pieces.append(named(mean_over_layers(weights), PER))
    return pandas.concat(pieces, ignore_index=True).assign(arm=arm)


def named(table: pandas.DataFrame, panel: str) -> pandas.DataFrame:
    return table[["step", "value"]].dropna().assign(panel=panel)


def mean_over_layers(rows: pandas.DataFrame) -> pandas.DataFrame:
    return rows.dropna(subset=["value"]).groupby("step")["value"].mean().reset_index()


def resets(out: Path) -> pandas.DataFrame:
    """Where the factors of each arm began anew."""
    found = []
    for arm in ARMS:
        log = picolm.open_run(out / "runs" / arm).log()
        if "relora_resets" in log:
            found.append(log.loc[log["relora_resets"].notna(), ["step"]].assign(arm=arm))
    return pandas.concat(found, ignore_index=True)


def summary_of(folder: Path) -> dict[str, Any]:
    """The numbers that the README quotes."""
    run = picolm.open_run(folder)
    log, scores, rows = run.log(), run.scores(), run.rows("dynamics")
    last, whole = log.iloc[-1], scores[scores["group"] == "all"].sort_values("step")
    late = rows[(rows["step"] > last["step"] / 2) & (rows["data_type"] == "updates") & rows["value"].notna()]
    updates = {
        f"{metric} of {part}": float(f"{found['value'].median():.3g}")
        for (metric, part), found in late.groupby(["metric", "part"])
    }
    facts = {
        "steps": int(last["step"]),
        "tokens": int(last["tokens"]),
        "flops": float(last["flops"]),
        "training_seconds": round(float(log["step_seconds"].sum()), 1),
        "held_out_loss": round(float(whole[whole["measure"] == "loss_per_token"]["value"].iloc[-1]), 4),
        "minimal_pairs": round(float(whole[whole["measure"] == "accuracy"]["value"].iloc[-1]), 4),
        "median over layers and the second half of the run": updates,
        "notes of condition numbers": notes_of(late),
    }
    for column in ("relora_merge_output_change", "relora_b_after_reset"):
        if column in log:
            facts[f"largest {column}"] = float(f"{log[column].max():.3g}")
    if "relora_b_gradient_norm" in log:
        facts["updates without a gradient of B"] = int((log["relora_b_gradient_norm"] == 0).sum())
    return facts


def notes_of(rows: pandas.DataFrame) -> dict[str, int]:
    """Note -> rows that have it, shares of rounding left out."""
    notes = rows.loc[rows["metric"] == "condition_number", "note"].str.replace(r": singular values below.*", "", regex=True)
    return {str(note) or "none": int(count) for note, count in notes.value_counts().items()}


def draw(curves: pandas.DataFrame, marks: pandas.DataFrame, path: Path) -> None:
    """Two columns of panels, one line for each arm; ticks above the axis where factors began anew."""
    import altair

    arms = list(ARMS)
    colour = altair.Color("arm:N", title=None, scale=altair.Scale(domain=arms, range=["#666666", "#c44536", "#1f6f8b"]))
    panels = []
    last = int(curves["step"].max())
    for panel in PANELS:
        own = curves[curves["panel"] == panel]
        ratio = CONDITION in panel or RESOLVED in panel
        lines = (
            altair.Chart(own)
            .mark_line(strokeWidth=1.2)
            .encode(
                x=altair.X("step:Q", title="update", scale=altair.Scale(domain=[0, last], nice=False)),
                y=altair.Y(
                    "value:Q",
                    title=None,
                    scale=altair.Scale(type="log" if ratio else "linear", zero=False),
                    axis=altair.Axis(format="~e" if ratio else "~g", tickCount=5),
                ),
                color=colour,
            )
        )
        ticks = (
            altair.Chart(marks)
            .mark_tick(orient="vertical", thickness=1, size=6, yOffset=3)
            .encode(x="step:Q", y=altair.value(120), color=colour)
        )
        title = panel.replace(RESOLVED, CONDITION) + (", above rounding" if panel.startswith(RESOLVED) else "")
        panels.append(altair.layer(lines, ticks).properties(width=300, height=120, title=title))
    altair.concat(*panels, columns=2).save(str(path))


if __name__ == "__main__":
    main()
