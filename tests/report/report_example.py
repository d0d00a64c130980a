"""A run folder with the look of a real one, written through `records`: what the report reads when nothing was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from picolm.records import evaluation, table, trainlog
from picolm.records.evaluation import Score
from picolm.records.manifest import Manifest, sealed_folder
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.records.table import Row

FLOOR = 2.31
TOKENS_PER_STEP = 4096
METRICS = ("gini", "hoyer", "per", "condition_number", "norm", "cka", "pwcca")
PLACES = (0.0, 0.1, 0.5, 0.9, 1.0)
PARTS = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")


def build_run(
    folder: Path,
    *,
    variant: str = "plain",
    seed: int = 1,
    steps: int = 600,
    layers: int = 4,
    heads: int = 4,
    checkpoints: tuple[int, ...] = (0, 1, 3, 8, 20, 50, 120, 250, 420, 600),
    metrics: tuple[str, ...] = METRICS,
    parts: tuple[str, ...] = PARTS,
) -> RunDirectory:
    """A finished run of `steps` steps with log, sealed checkpoints, evaluations and an analysis."""
    run = RunDirectory(folder)
    generator = np.random.default_rng(seed)
    run.write_identity(identity(run.name, variant, seed, steps))
    run.config_file.write_text(f"model:\n  d_model: 96\ntraining:\n  max_steps: {steps}\n  method: {variant}\n", encoding="utf-8")
    speed = 0.9 if variant == "plain" else 1.15
    write_log(run, steps, speed, generator)
    write_checkpoints(run, checkpoints)
    write_evaluations(run, checkpoints, steps, speed, generator)
    table.append_rows(
        run.analysis("dynamics"), analysis_rows(run, variant, seed, checkpoints, layers, heads, metrics, parts, generator)
    )
    table.append_rows(run.analysis("spectrum"), spectrum_rows(run, variant, seed, checkpoints, layers, parts[0]))
    return run


def identity(name: str, variant: str, seed: int, steps: int) -> dict[str, object]:
    return {
        "format": "picolm.run/1",
        "name": name,
        "created": "2025-03-01T09:30:00+00:00",
        "variant": variant,
        "seed": seed,
        "seeds": {"init": seed, "data": seed + 1, "capture": seed + 2},
        "code": {"version": "0.1.0", "git_commit": "0123456789abcdef0123456789abcdef01234567", "git_dirty": False},
        "environment": {"python": "3.11.2", "torch": "2.13.0", "threads": 2, "device": "cpu"},
        "data": {
            "name": "synthetic",
            "fingerprint": "a" * 64,
            "rows": 20000,
            "row_length": 129,
            "entropy_floor_nats_per_token": FLOOR,
            "tokenizer_sha256": "b" * 64,
        },
        "model": {"type": "pico_decoder", "parameters": 1_204_224},
        "config_hash": "c" * 64,
        "batch_sequences": 32,
        "max_steps": steps,
        "history": [{"event": "started", "step": 0}],
    }


def loss_at(step: np.ndarray | float, speed: float = 1.0) -> np.ndarray:
    return FLOOR + 0.05 + 4.4 / (1.0 + np.asarray(step) / (22 / speed)) ** 0.9


def write_log(run: RunDirectory, steps: int, speed: float, generator: np.random.Generator) -> None:
    step = np.arange(1, steps + 1)
    loss = loss_at(step, speed) + generator.normal(0, 0.03, steps)
    rate = 1e-3 * np.minimum(step / 50, 1.0) * (0.55 + 0.45 * np.cos(np.pi * step / steps))
    norm = 0.4 + 3 / (1 + step / 15) * np.exp(generator.normal(0, 0.15, steps))
    seconds = 0.11 * np.exp(generator.normal(0, 0.06, steps))
    rows = (
        {
            "step": int(s),
            "tokens": int(s) * TOKENS_PER_STEP,
            "loss": float(a),
            "learning_rate": float(r),
            "gradient_norm": float(n),
            "clip_factor": float(min(1.0, 1 / n)),
            "tokens_per_second": float(TOKENS_PER_STEP / t),
            "step_seconds": float(t),
        }
        for s, a, r, n, t in zip(step, loss, rate, norm, seconds, strict=True)
    )
    run.log_file.parent.mkdir(parents=True, exist_ok=True)
    run.log_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert len(trainlog.read_rows(run.log_file)) == steps


def write_checkpoints(run: RunDirectory, checkpoints: tuple[int, ...]) -> None:
    for step in checkpoints:
        manifest = Manifest(step=step, tokens=step * TOKENS_PER_STEP, parent=None, config_hash="c" * 64)
        with sealed_folder(run.checkpoint(step), manifest) as folder:
            files = CheckpointFolder(folder)
            files.weights.write_bytes(b"w" * 4096)
            files.training_state.mkdir()
            (files.training_state / "optimizer.safetensors").write_bytes(b"o" * 8192)
            files.learning_dynamics.mkdir()
            files.dynamics_info("train").write_text("{}", encoding="utf-8")


def write_evaluations(
    run: RunDirectory, checkpoints: tuple[int, ...], steps: int, speed: float, generator: np.random.Generator
) -> None:
    phenomena = ("number_agreement", "gender_agreement", "anaphora", "relative_clause")
    for step in checkpoints:
        loss = float(loss_at(step, speed) + 0.06 + generator.normal(0, 0.01))
        scores = [
            Score("perplexity", "loss_per_token", loss, standard_error=0.012, n=40_000),
            Score("perplexity", "perplexity", float(np.exp(loss)), standard_error=float(np.exp(loss)) * 0.012, n=40_000),
        ]
        accuracies = []
        for index, phenomenon in enumerate(phenomena):
            accuracy = float(0.5 + 0.45 / (1 + np.exp(-(np.log1p(step) - 2.5 - 0.6 * index) * 1.6)) + generator.normal(0, 0.01))
            accuracies.append(accuracy)
            error = float(np.sqrt(accuracy * (1 - accuracy) / 200))
            scores.append(Score("minimal_pairs", "accuracy", accuracy, phenomenon, error, 200, 0.5))
        mean = float(np.mean(accuracies))
        scores.append(Score("minimal_pairs", "accuracy", mean, "all", float(np.sqrt(mean * (1 - mean) / 800)), 800, 0.5))
        settings = {"perplexity": {"window": 128}, "minimal_pairs": {}, "samples": {"seed": 0, "samples": texts_at(step)}}
        evaluation.write_scores(run, step, step * TOKENS_PER_STEP, scores, settings)


def texts_at(step: int) -> list[dict[str, str]]:
    words = ["the", "girl", "near", "the", "boys", "likes", "a", "dog"]
    learned = 1 + min(step // 80, len(words) - 1)
    return [
        {"prompt": prompt, "continuation": " " + " ".join((words[:learned] * 8)[:12])} for prompt in ("The", "Once upon a time")
    ]


def spectrum_rows(run: RunDirectory, variant: str, seed: int, checkpoints: tuple[int, ...], layers: int, part: str) -> list[Row]:
    rows = []
    last = max(checkpoints[-1], 1)
    for step in checkpoints:
        progress = float(np.log1p(step) / np.log1p(last))
        for layer in range(layers):
            for place in PLACES:
                noise = 2 - 1.9 * place
                rows.append(
                    Row(
                        run.name,
                        step,
                        "weights",
                        "simple",
                        part,
                        "relative_singular_value",
                        noise * (1 + progress * (1 - 2 * place) * (layer + 1) / layers),
                        variant=variant,
                        seed=seed,
                        tokens=step * TOKENS_PER_STEP,
                        layer=layer,
                        options=json.dumps({"at": place}),
                        null=noise,
                    )
                )
    return rows


def metric_value(metric: str, progress: float, depth: float, noise: float) -> float:
    rise = progress * (0.5 + 0.5 * depth)
    shapes = {
        "gini": 0.414 + 0.12 * rise,
        "hoyer": 0.2 + 0.15 * rise,
        "per": 0.8 - 0.35 * rise,
        "condition_number": 40 * np.exp(4 * rise),
        "norm": 5 + 6 * rise,
        "cka": 0.05 + 0.95 * progress ** (0.5 + depth),
        "pwcca": 0.3 + 0.7 * progress ** (0.7 + depth),
    }
    return float(shapes.get(metric, 1.0 + rise) * (1 + 0.012 * noise))


def analysis_rows(
    run: RunDirectory,
    variant: str,
    seed: int,
    checkpoints: tuple[int, ...],
    layers: int,
    heads: int,
    metrics: tuple[str, ...],
    parts: tuple[str, ...],
    generator: np.random.Generator,
) -> list[Row]:
    rows = []
    last = checkpoints[-1]
    kinds = [("weights", ""), ("activations", "val"), ("gradients", "train"), ("updates", "train")]
    wholes = [("simple", data_type, split, part, None) for data_type, split in kinds for part in parts]
    circuits = [("ov_circuit", "weights", "", "attention.ov_circuit", head) for head in range(heads)]
    for step in checkpoints:
        progress = float(np.log1p(step) / np.log1p(max(last, 1)))
        for component, data_type, split, part, head in wholes + circuits:
            for metric in metrics:
                paired = metric in ("cka", "pwcca")
                if paired != (data_type == "activations"):
                    continue
                for layer in range(layers):
                    undefined = data_type == "updates" and step == last
                    noise = float(generator.normal()) + (0 if head is None else 3 * (head - 1.5))
                    value = metric_value(metric, progress, layer / max(layers - 1, 1), noise)
                    rows.append(
                        Row(
                            run=run.name,
                            variant=variant,
                            seed=seed,
                            step=step,
                            split=split,
                            tokens=step * TOKENS_PER_STEP,
                            data_type=data_type,
                            component=component,
                            part=part,
                            metric=metric,
                            layer=layer,
                            head=head,
                            dtype="float32",
                            value=None if undefined else value,
                            options='{"norm_type":"frobenius"}' if metric == "norm" else "{}",
                            partner=f"step={last}" if paired else "",
                            null=0.414 if metric == "gini" else None,
                            note="no update was applied after this step" if undefined else "",
                        )
                    )
    return rows
