"""Evaluation inside the loop: the live model at a checkpoint, scores into the run folder."""

from __future__ import annotations

from typing import Any

from picolm.data.contract import TokenSource
from picolm.data.tokenizer import load_tokenizer
from picolm.evaluate.contract import build_evaluations, run_evaluations
from picolm.records.evaluation import write_scores
from picolm.train.checkpoint import Evaluator
from picolm.train.config import RunConfig
from picolm.train.run import Parts


def prepare_evaluator(config: RunConfig[Any], parts: Parts, data: TokenSource) -> Evaluator:
    """The function the checkpointer calls; bad input of any evaluation is a PicoError here, before step 0."""
    tokenizer = None if data.tokenizer_file is None else load_tokenizer(data.tokenizer_file)
    evaluations = build_evaluations(config.evaluation, data=data, tokenizer=tokenizer, max_seq_len=config.model.max_seq_len)
    for evaluation in evaluations:
        evaluation.check()

    def evaluate(step: int, tokens: int) -> None:
        if not evaluations or not parts.fabric.is_global_zero:
            return
        scores, settings = run_evaluations(
            evaluations, parts.model, tokenizer, device=parts.fabric.device, precision=config.training.fabric.precision
        )
        write_scores(parts.directory, step, tokens, scores, settings)

    return evaluate
