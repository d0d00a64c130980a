"""A study as the report gets it: run folders with chosen numbers, judged by the judge itself."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from tests.study.synthetic import Runs, lock_of, study

from picolm.study.config import StudyConfig
from picolm.study.judge import judge
from picolm.study.judgement import Judgement

POINTS = 40
SLOWER = {"full": 0.0, "published": 0.11, "specified": 0.045}
"""How far above the full-rank loss each variant ends, in nats."""


def example_study(**changes: Any) -> StudyConfig:
    content: dict[str, Any] = {
        "id": "relora-merge-scale",
        "statement": "Merging adapters with their scale factor lowers the final loss versus the published merge.",
        "rationale": {"source": "arXiv 2509.12960", "notes": "The published merge omits the factor alpha / r."},
        "variants": {
            "full": {"role": "baseline"},
            "published": {"role": "control", "set": {"training.method": "relora", "training.relora.merge": "published"}},
            "specified": {"role": "treatment", "set": {"training.method": "relora", "training.relora.merge": "specified"}},
        },
        "seeds": {"tuning": [901, 902, 903], "confirm": [11, 12, 13, 14, 15, 16], "reserve": [17, 18, 19, 20]},
        "stopping": {"looks": [6, 10], "spend": [0.015625, 0.04]},
        "budget": {"parity": ["tokens", "data", "tokenizer"], "report": ["parameters", "seconds"]},
        "measures": {
            "final": {"series": "evaluation.perplexity.loss_per_token", "label": "final loss, nats per token"},
            "curve": {"series": "train.loss", "reduce": "curve", "label": "training loss, nats per token"},
            "hit": {"series": "train.loss", "reduce": "tokens_to", "level": 3.35, "label": "tokens to 3.35 nats"},
        },
        "checks": [
            {"kind": "invariant", "series": "train.loss", "min": 0.0, "name": "losses are not negative"},
            {"kind": "noise_floor", "variant": "full", "measure": "final"},
            {"kind": "headroom", "measure": "final", "bound": "entropy_floor", "min_gap": 0.1},
        ],
        "predictions": {
            "P1": {
                "primary": True,
                "kind": "difference",
                "of": "specified",
                "versus": "published",
                "measure": "final",
                "direction": "lower",
                "at_least": 0.02,
                "expect": 0.05,
                "note": "The factor of two should be visible.",
            },
            "P2": {"kind": "equivalence", "of": "specified", "versus": "full", "measure": "final", "margin": 0.05},
            "P3": {"kind": "tokens_to_level", "of": "specified", "versus": "published", "measure": "hit", "expect": 1.3},
            "P4": {"kind": "whole_curve", "of": "specified", "versus": "published", "measure": "curve", "direction": "lower"},
            "P5": {"kind": "difference", "of": "published", "versus": "full", "measure": "final", "direction": "higher"},
        },
        "family": {"order": ["P1", "P2", "P3", "P4"]},
    }
    return study(**(content | changes))


def noise(variant: str, seed: int) -> float:
    return float(np.random.default_rng([seed, zlib.crc32(variant.encode())]).normal(0, 0.011))


def final_loss(variant: str, seed: int) -> float:
    shared = float(np.random.default_rng(seed).normal(0, 0.03))
    return 3.02 + shared + SLOWER.get(variant, 0.0) + noise(variant, seed)


def loss_curve(variant: str, seed: int) -> list[float]:
    progress = np.arange(1, POINTS + 1) / POINTS
    bumps = np.random.default_rng([seed, 7, zlib.crc32(variant.encode())]).normal(0, 0.02, POINTS)
    fall = 3.4 * np.exp(-4.5 * progress) * (1 + 3 * SLOWER.get(variant, 0.0))
    return [float(value) for value in final_loss(variant, seed) + fall + bumps]


def few_predictions() -> dict[str, Any]:
    """Changes that leave the first two predictions: judged in a fraction of the time."""
    whole = example_study().model_dump(mode="json")
    return {"predictions": {name: whole["predictions"][name] for name in ("P1", "P2")}, "family": {"order": ["P1", "P2"]}}


def make_judgement(folder: Path, **changes: Any) -> Judgement:
    """The example judged. `status`, `locked` and `final` change the runs; anything else changes the study."""
    runs_changes = {name: changes.pop(name) for name in ("status", "final") if name in changes}
    locked, tampering = changes.pop("locked", True), changes.pop("tampering", ())
    config = example_study(**changes)
    options: dict[str, Any] = {"final": final_loss, "curve": loss_curve, "status": {}} | runs_changes
    status = {(variant, seed): "missing" for variant in config.variants for seed in config.seeds.reserve} | options["status"]
    runs = Runs(config, folder, options["final"], curve=options["curve"], status=status)
    lock = lock_of(config) if locked else None
    judged = judge(config, runs.cells(), lock, tampering=tampering)
    return judged.model_copy(update={"extend_command": "pico study run studies/relora-merge-scale"})


def hostile(payload: str, judgement: Judgement) -> Judgement:
    """The judgement with every text in it replaced by the payload, where that leaves it a judgement."""

    def planted(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: planted(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [planted(item, key) for item in value]
        return payload if isinstance(value, str) and key not in FIXED else value

    return Judgement.model_validate(planted(judgement.model_dump(mode="json")))


FIXED = {
    *("format", "mode", "verdict", "scale", "outcome", "phase", "made", "locked", "first_run"),
    *("of", "versus", "variants", "variant", "measure", "name"),
}
"""Texts that are one of a few words, times, or names by which parts of a judgement find each other."""
