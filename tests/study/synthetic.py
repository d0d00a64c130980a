"""Studies whose runs were never trained: run folders with logs and scores made from chosen numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picolm.records import evaluation
from picolm.records.evaluation import Score
from picolm.records.rundir import RunDirectory
from picolm.study.config import StudyConfig, parse_study
from picolm.study.lock import StudyLock
from picolm.study.matrix import Cell

Curve = Callable[[str, int], Sequence[float]]
"""(variant, seed) -> losses, one per 10 steps."""


IDENTITY = {
    "created": "2030-01-02T03:04:05+00:00",
    "model": {"parameters": 1000},
    "data": {"fingerprint": "aa", "tokenizer_sha256": "bb", "entropy_floor_nats_per_token": 2.5},
}


def study(**changes: Any) -> StudyConfig:
    """Two variants, six seeds, one difference; top-level keys may be replaced."""
    content: dict[str, Any] = {
        "id": "made-up",
        "statement": "The treatment lowers the final loss.",
        "base": "base.yaml",
        "variants": {
            "plain": {"role": "baseline"},
            "treated": {"role": "treatment", "set": {"training.optimization.lr": 0.002}},
        },
        "seeds": {"confirm": [11, 12, 13, 14, 15, 16]},
        "budget": {"parity": ["tokens"], "report": ["parameters"]},
        "measures": {
            "final": {"series": "evaluation.perplexity.loss_per_token"},
            "curve": {"series": "train.loss", "reduce": "curve"},
        },
        "predictions": {
            "P1": {
                "primary": True,
                "kind": "difference",
                "of": "treated",
                "versus": "plain",
                "measure": "final",
                "direction": "lower",
                "at_least": 0.02,
                "expect": 0.05,
            }
        },
    }
    return parse_study(content | changes, "made-up study")


@dataclass
class Runs:
    """Writes the runs of a study below a folder."""

    study: StudyConfig
    folder: Path
    final: Callable[[str, int], float]
    curve: Curve = lambda variant, seed: [4.0, 3.5, 3.2, 3.1]
    """(variant, seed) -> losses of the log."""
    columns: Callable[[str, int], Mapping[str, Sequence[float]]] = lambda variant, seed: {}
    """More columns of the log, as many values as losses."""
    status: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """How runs ended, where they are not complete."""
    tokens_per_step: Mapping[str, int] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        seeds = self.study.seeds
        phases = {"tuning": seeds.tuning, "confirm": seeds.confirm, "reserve": seeds.reserve}
        return [
            self.cell(variant, seed, phase)
            for phase, numbers in phases.items()
            for seed in numbers
            for variant in self.study.variants
        ]

    def cell(self, variant: str, seed: int, phase: str, *, control: str = "", value: Any = None) -> Cell:
        name = f"{control or variant}-seed-{seed}"
        status = self.status.get((control or variant, seed), "complete")
        run = RunDirectory(self.folder / name)
        if status == "complete":
            self._write(run, control or variant, seed)
        return Cell(variant, seed, phase, run, (), "", "", value=value, control=control, status=status)

    def _write(self, run: RunDirectory, variant: str, seed: int) -> None:
        losses = list(self.curve(variant, seed))
        tokens = self.tokens_per_step.get(variant, 100)
        for file in (run.log_file, run.evaluation_file(0)):
            file.parent.mkdir(parents=True, exist_ok=True)
        run.identity_file.write_text(json.dumps(IDENTITY))
        more = self.columns(variant, seed)
        rows = [
            {"step": 10 * (at + 1), "tokens": 10 * (at + 1) * tokens, "loss": loss, "step_seconds": 0.5}
            | {name: values[at] for name, values in more.items()}
            for at, loss in enumerate(losses)
        ]
        for row in rows:
            for name, value in row.items():
                row[name] = value if math.isfinite(value) else None
        run.log_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        last = rows[-1]["step"]
        score = Score("perplexity", "loss_per_token", self.final(variant, seed))
        scores = {
            "format": evaluation.FORMAT,
            "step": last,
            "tokens": rows[-1]["tokens"],
            "scores": [vars(score)],
            "settings": {"perplexity": {"data_hash": "cc", "seconds": 0.1 * seed}},
        }
        run.evaluation_file(last).write_text(json.dumps(scores))


def lock_of(config: StudyConfig, **changes: Any) -> StudyLock:
    """A lock of the study, with nothing resolved."""
    content: dict[str, Any] = {
        "study": config.id,
        "version": 1,
        "parent": None,
        "created": "2030-01-01T00:00:00+00:00",
        "mode": config.mode,
        "mode_reason": "",
        "definition": "study.yaml",
        "declared": config.model_dump(mode="json"),
        "base": {},
        "base_name": "base.yaml",
        "variants": {
            name: {"role": variant.role, "changes": {key: (None, value) for key, value in variant.set.items()}, "config": {}}
            for name, variant in config.variants.items()
        },
        "data": {},
        "files": {},
        "code": {},
        "environment": {},
        "cells": (),
    }
    lock = StudyLock.model_validate(content | changes)
    return lock.model_copy(update={"hash": lock.computed_hash()})


def losses_apart(gap: float, noise: float = 0.004) -> Callable[[str, int], float]:
    """Final losses: seeds differ by much, variants by `gap` plus a little that depends on the seed."""
    return lambda variant, seed: 3.0 + 0.05 * (seed % 7) - (gap + noise * ((seed * 7) % 5 - 2) if variant == "treated" else 0.0)
