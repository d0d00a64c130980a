"""Train three arms, measure their dynamics inside the loop, and draw the panels of the paper's Figure 2.

    python examples/maml_figure_2/run.py [--out maml_figure_2] [--set training.max_steps=100]

Writes data, runs, `figure.svg` and `summary.json` into the folder. Repeat the command to continue where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas
from phases import turning_points

import picolm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from arms import make_data, parsed_arguments, train, write_summary  # noqa: E402 - lies beside the folders of the examples

ARMS = ("plain", "published", "specified")


def main() -> None:
    """Data, runs, figure and summary."""
    arguments = parsed_arguments((__doc__ or "").splitlines()[0], out="maml_figure_2")
    out: Path = arguments.out
    data = str(out / "data")
    make_data(out / "data", HERE / "plain.yaml", arguments.set, vocab_size=500)
    changes = {
        "checkpointing.learning_dynamics.eval_data": data,
        "evaluation.metrics": [{"name": "perplexity", "data": data, "every_n_steps": 25}],
    }
    for arm in ARMS:
        train(arm, HERE / f"{arm}.yaml", out, changes, arguments.set)
    curves, phases = gather(out)
    draw(curves, phases, out / "figure.svg")
    write_summary(out, summarise(out, curves, phases))


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
