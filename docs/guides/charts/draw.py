"""Draw the gallery of charts: `python docs/guides/charts/draw.py [FOLDER]`. One SVG per chart function, and README.md.

The numbers are made up from a fixed seed; the functions are those of `picolm.charts`, as a notebook calls them.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from picolm import charts

TOKENS_PER_STEP = 4096
STEPS = np.array([0, 1, 3, 8, 20, 50, 120, 250, 420, 600])
RANDOM = np.random.default_rng(7)


def curve(steps: np.ndarray, speed: float = 1.0) -> np.ndarray:
    """A loss that falls towards 2.31 nats."""
    return 2.36 + 4.4 / (1 + steps * speed / 22) ** 0.9


def at(steps: np.ndarray, **columns: Any) -> pandas.DataFrame:
    """A frame with steps, tokens and more."""
    return pandas.DataFrame({"step": steps, "tokens": steps * TOKENS_PER_STEP, **columns})


def training_log() -> pandas.DataFrame:
    steps = np.arange(1, 601)
    norm = 0.4 + 3 / (1 + steps / 15) * np.exp(RANDOM.normal(0, 0.15, steps.size))
    return at(steps, loss=curve(steps) + RANDOM.normal(0, 0.03, steps.size), gradient_norm=norm)


def scores() -> pandas.DataFrame:
    pieces = []
    for group, onset in (("agreement", 2.2), ("anaphora", 3.4), ("all", 2.8)):
        value = 0.5 + 0.45 / (1 + np.exp(-(np.log1p(STEPS) - onset) * 1.6))
        pieces.append(at(STEPS, group=group, value=value, standard_error=np.sqrt(value * (1 - value) / 400), baseline=0.5))
    return pandas.concat(pieces, ignore_index=True)


def many_scores() -> pandas.DataFrame:
    names = (
        "agreement",
        "anaphor gender",
        "anaphor number",
        "binding",
        "clause",
        "determiner",
        "ditransitive",
        "island",
        "object",
    )
    rises = [0.5 + 0.48 / (1 + np.exp(-(np.log1p(STEPS) - 1.5 - 0.4 * index) * 1.6)) for index in range(len(names))]
    return pandas.concat([at(STEPS, group=name, value=rise) for name, rise in zip(names, rises, strict=True)], ignore_index=True)


def metric_rows(heads: int = 4) -> pandas.DataFrame:
    pieces = []
    for layer in range(6):
        for head in range(heads):
            rise = np.log1p(STEPS) / np.log1p(600) * (0.4 + 0.1 * layer)
            value = 0.8 - 0.5 * rise + 0.01 * (head - 1.5) + RANDOM.normal(0, 0.004, STEPS.size)
            pieces.append(at(STEPS, layer=layer, head=head, value=value, null=0.8))
    return pandas.concat(pieces, ignore_index=True)


def runs() -> pandas.DataFrame:
    pieces = []
    for variant, speed in (("plain", 1.0), ("wide", 1.35)):
        for seed in range(4):
            noise = RANDOM.normal(0, 0.05) + RANDOM.normal(0, 0.02, STEPS.size)
            pieces.append(at(STEPS, series=variant, run=f"{variant}-{seed}", loss=curve(STEPS, speed) + noise))
    return pandas.concat(pieces, ignore_index=True)


def layers_of_runs() -> pandas.DataFrame:
    pieces = [metric_rows(1).assign(series=name, run=f"{name}-{seed}") for name in ("plain", "wide") for seed in range(3)]
    frame = pandas.concat(pieces, ignore_index=True)
    return frame.assign(value=frame["value"] - 0.05 * (frame["series"] == "wide") + RANDOM.normal(0, 0.01, len(frame)))


def step_pairs() -> pandas.DataFrame:
    pairs = [(i, j) for i in range(len(STEPS)) for j in range(i, len(STEPS))]
    return pandas.DataFrame(
        {
            "layer": 0,
            "step": [STEPS[i] for i, _ in pairs],
            "partner": [f"step={STEPS[j]}" for _, j in pairs],
            "value": [float(np.exp(-abs(i - j) / 4)) for i, j in pairs],
        }
    )


def spectrum() -> pandas.DataFrame:
    pieces = []
    for place in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0):
        noise = 1.98 * (1 - place) + 0.02
        rise = np.log1p(STEPS) / np.log1p(600)
        pieces.append(at(STEPS, place=place, value=noise * np.exp(rise * (0.9 * (1 - place) ** 12 - 0.8 * place)), null=noise))
    return pandas.concat(pieces, ignore_index=True)


SEEDS = (11, 12, 13, 14, 15, 16)


def seeds() -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """The effect in each seed, and what is said about their mean."""
    effects = pandas.DataFrame({"seed": SEEDS, "effect": [0.052, 0.071, 0.038, 0.061, 0.047, 0.066]})
    rows = [
        ("mean, 95 %", 0.043, 0.069, 0.056, "95 % interval of the mean, paired t"),
        ("one left out", 0.053, 0.059, None, "range of the means without one of the seeds"),
        ("noise (A/A)", -0.012, 0.012, None, "one standard deviation between runs that differ in the seed alone"),
    ]
    return effects, pandas.DataFrame(rows, columns=["name", "low", "high", "mean", "words"])


def pairs() -> pandas.DataFrame:
    effects, _ = seeds()
    base = 3.05 + RANDOM.normal(0, 0.03, len(SEEDS))
    variants = {"published": base, "specified": base - effects["effect"].to_numpy()}
    frames = [pandas.DataFrame({"variant": name, "seed": SEEDS, "value": values}) for name, values in variants.items()]
    return pandas.concat(frames, ignore_index=True)


def difference() -> pandas.DataFrame:
    steps = np.arange(20, 601, 20)
    mean = 0.06 * (1 - np.exp(-steps / 150)) + RANDOM.normal(0, 0.004, steps.size)
    return at(steps, mean=mean, low=mean - 0.022, high=mean + 0.022)


def gallery() -> dict[str, Any]:
    """Name of a chart function -> an example of what it draws."""
    log = training_log()
    validation = at(STEPS, value=curve(STEPS) + 0.06)
    return {
        "losses": charts.losses(log, validation, floor=2.31),
        "log_column": charts.log_column(log, "gradient_norm", title="gradient norm", logarithmic=True),
        "scores_over_time": charts.scores_over_time(scores(), measure="accuracy", title="Minimal pairs"),
        "scores_map": charts.scores_map(many_scores(), title="Minimal pairs by paradigm", shares=True),
        "metric_trajectories": charts.metric_trajectories(metric_rows(), title="Proportional effective rank"),
        "metric_heatmap": charts.metric_heatmap(metric_rows(), title="Proportional effective rank"),
        "runs_over_time": charts.runs_over_time(
            runs(), "loss", title="Validation loss", reference=charts.Reference(2.31, "floor")
        ),
        "layers_of_runs": charts.layers_of_runs(layers_of_runs(), title="Proportional effective rank"),
        "spectrum_over_time": charts.spectrum_over_time(spectrum(), title="Singular values of a matrix"),
        "seed_effects": charts.seed_effects(
            *seeds(),
            title="Final loss",
            axis="difference in final loss, nats per token; right: as predicted",
            holds=[charts.Span(0.02, None)],
            thresholds=[0.02],
            threshold_name="at least +0.02",
        ),
        "paired_seeds": charts.paired_seeds(pairs(), title="Final loss", order=["published", "specified"], axis="nats per token"),
        "curve_difference": charts.curve_difference(difference(), title="Training loss, difference", apart_from=80 * 4096),
        "similarity_map": charts.similarity_map(charts.step_pairs(step_pairs()), title="CKA", bounds=(0.0, 1.0)),
    }


def describe(name: str) -> str:
    """The signature and the docstring of a chart function, as Markdown."""
    function = getattr(charts, name)
    parameters = ", ".join(inspect.signature(function).parameters)
    return f"## `charts.{name}({parameters})`\n\n{inspect.getdoc(function)}\n\n![{name}]({name}.svg)\n"


def draw(folder: Path) -> list[Path]:
    """Write the gallery into a folder; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = gallery()
    paths = [charts.save_chart(chart, folder / f"{name}.svg", style="paper") for name, chart in drawn.items()]
    head = (
        "# Gallery of charts\n\nEvery chart is a function on a DataFrame that returns an Altair chart. Written by `draw.py`.\n\n"
    )
    readme = folder / "README.md"
    readme.write_text(head + "\n".join(describe(name) for name in drawn), encoding="utf-8")
    return [*paths, readme]


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(path)
