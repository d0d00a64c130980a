"""Train at full rank and with ReLoRA, as published and as specified, and draw the panels of the paper's Figure 3.

    python examples/relora_figure_3/run.py [--out relora_figure_3] [--set training.max_steps=100]

Writes data, runs, `figure.svg` and `summary.json` into the folder. Repeat the command to continue where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas

import picolm
from picolm.base.config import read_yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from arms import make_data, parsed_arguments, train, write_summary  # noqa: E402 - lies beside the folders of the examples

ARMS = read_yaml(HERE / "arms.yaml")
LAYERS = ("attention.v_proj", "attention.o_proj")
LOSS, TRAINING_LOSS, PAIRS, PER = "held-out loss (nats)", "training loss (nats)", "minimal pairs (accuracy)", "PER of weights"
CONDITION, RESOLVED = "condition number of updates: ", "above rounding: "
PANELS = (PAIRS, LOSS, *(CONDITION + layer for layer in LAYERS), *(RESOLVED + layer for layer in LAYERS), PER, TRAINING_LOSS)


def main() -> None:
    """Data, runs, figure and summary."""
    arguments = parsed_arguments((__doc__ or "").splitlines()[0], out="relora_figure_3")
    out: Path = arguments.out
    make_data(out / "data", HERE / "plain.yaml", arguments.set, vocab_size=512)
    evaluations = read_yaml(HERE / "plain.yaml")["evaluation"]["metrics"]
    here = [{**each, "data": str(out / "data") + each["data"].removeprefix("relora_figure_3/data")} for each in evaluations]
    for arm in ARMS:
        train(arm, HERE / "plain.yaml", out, {"evaluation.metrics": here, **ARMS[arm]}, arguments.set)
    curves = pandas.concat([curves_of(arm, out / "runs" / arm) for arm in ARMS], ignore_index=True)
    draw(curves, resets(out), out / "figure.svg")
    write_summary(out, {arm: summary_of(out / "runs" / arm) for arm in ARMS})


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
