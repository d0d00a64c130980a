"""Evaluation inside the loop: the live model at checkpoints or at a pace of its own, within its budget."""

from __future__ import annotations

import time
from typing import Any

import torch

from picolm.data.contract import TokenSource
from picolm.data.tokenizer import load_tokenizer
from picolm.evaluate.contract import NamedEvaluation, build_evaluations, check_evaluations
from picolm.evaluate.live import LiveEvaluation
from picolm.evaluate.scorer import Tokenizer
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.train.config import RunConfig
from picolm.train.run import Parts


class Evaluator:
    """Called by every process at every step; does nothing unless an evaluation is due."""

    def __init__(self, live: LiveEvaluation, parts: Parts) -> None:
        self._live = live
        self._parts = parts
        self._begun = time.perf_counter()
        self._evaluating_seconds = 0.0
        self._seconds_before = logged_seconds(parts.directory)

    @property
    def training_seconds(self) -> float:
        """Seconds of the run so far, also before it was continued, evaluation not included."""
        return self._seconds_before + time.perf_counter() - self._begun - self._evaluating_seconds

    def __call__(self, step: int, tokens: int, *, is_checkpoint: bool) -> None:
        """Run what is due and write the scores into the run."""
        if not self._live.is_turn(step, is_checkpoint=is_checkpoint):
            return
        begun, seconds = time.perf_counter(), self.training_seconds
        with torch.random.fork_rng():
            self._live.at(step, tokens, self._parts.model, is_checkpoint=is_checkpoint, training_seconds=seconds)
        self._evaluating_seconds += time.perf_counter() - begun

    def report(self) -> str:
        """One sentence on what evaluation has cost; empty if there is none."""
        return self._live.cadence.report(self.training_seconds) if self._live.cadence.evaluations else ""


def checked_evaluations(config: RunConfig[Any], data: TokenSource, tokenizer: Tokenizer | None) -> list[NamedEvaluation]:
    """The evaluations of a run; bad input of any of them is a PicoError here, before step 0."""
    longest, known = config.model.max_seq_len, config.model.vocab_size
    evaluations = build_evaluations(config.evaluation, data=data, tokenizer=tokenizer, max_seq_len=longest, vocab_size=known)
    check_evaluations(evaluations)
    return evaluations


def prepare_evaluator(config: RunConfig[Any], parts: Parts, data: TokenSource) -> Evaluator:
    """The evaluator of a run, checked."""
    tokenizer = None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file)
    live = LiveEvaluation(
        checked_evaluations(config, data, tokenizer),
        config.evaluation,
        parts.directory,
        tokenizer=tokenizer,
        last_step=config.training.max_steps,
        device=parts.fabric.device,
        precision=config.training.fabric.precision,
    )
    return Evaluator(live, parts)


def logged_seconds(directory: RunDirectory) -> float:
    """Training seconds in the log of a run that continues."""
    rows = trainlog.read_rows(directory.log_file)
    earlier = [0, *(row["step"] for row in rows)]
    seconds = [float(row["step_seconds"]) * (row["step"] - before) for row, before in zip(rows, earlier, strict=False)]
    return float(sum(seconds))
