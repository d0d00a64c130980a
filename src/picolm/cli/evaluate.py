"""`pico evaluate`: score the checkpoints of a run, or any model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from picolm.evaluate.contract import EvaluationConfig, Outcome
    from picolm.evaluate.subject import Subject


def evaluate(
    target: Annotated[Path, typer.Argument(help="Run folder, or folder of a Hugging Face Llama model.", show_default=False)],
    steps: Annotated[str | None, typer.Option(help="Checkpoints of a run, such as `0,1000`. Default: all.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:KEY=VALUE,...]", help="Evaluation to run, such as `perplexity:data=texts`. Repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Take the evaluations from the section `evaluation` of this file.")] = None,
    precision: Annotated[str, typer.Option(help="`32-true` or `bf16-mixed`.")] = "32-true",
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `mps`, or `auto`.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Score a run's checkpoints (the scores are kept in the run) or a model folder (they are printed)."""
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.evaluate.subject import find_subjects, run_evaluation_config
    from picolm.records.evaluation import write_scores

    subjects = find_subjects(target, _steps(steps))
    run = subjects[0].run
    if metric or config:
        chosen = _chosen_evaluations(metric or [], config)
    elif run is not None:
        chosen = run_evaluation_config(run)
    else:
        raise PicoError("which evaluations?", "name some, such as --metric perplexity:data=texts.jsonl, or give --config")
    if not chosen.entries:
        raise PicoError(f"{target}: its configuration names no evaluation", "name some with --metric, or give --config")
    for subject in subjects:
        outcome = _score(subject, chosen, device, precision)
        if run is not None and subject.step is not None:
            write_scores(run, subject.step, subject.tokens, outcome.scores, outcome.settings)
        _show(subject, outcome, as_json=as_json)
    if run is not None:
        say(f"written: {run.evaluations}")
        say_next(f"pico report {run.path}")


def _steps(text: str | None) -> list[int] | None:
    from picolm.base.errors import PicoError

    if text is None:
        return None
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError as error:
        raise PicoError(f"--steps {text}: not a list of steps", "write numbers with commas, such as 0,100,1000") from error


def _chosen_evaluations(metrics: list[str], config: Path | None) -> EvaluationConfig:
    from picolm.base.config import parse_settings, read_yaml
    from picolm.evaluate.contract import EvaluationConfig
    from picolm.evaluate.written import parse_metric

    section = {} if config is None else dict(read_yaml(config).get("evaluation") or {})
    if metrics:
        section["metrics"] = [parse_metric(text) for text in metrics]
    return parse_settings(EvaluationConfig, section, "--metric" if config is None else f"{config}: evaluation")


def _score(subject: Subject, config: EvaluationConfig, device: str, precision: str) -> Outcome:
    import torch

    from picolm.evaluate.contract import build_evaluations, run_evaluations
    from picolm.evaluate.subject import run_data

    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = subject.load_model().to(name)
    tokenizer = subject.load_tokenizer()
    data = None if subject.run is None else run_data(subject.run)
    evaluations = build_evaluations(config, data=data, tokenizer=tokenizer, max_seq_len=model.max_seq_len)
    for evaluation in evaluations:
        evaluation.check()
    return run_evaluations(evaluations, model, tokenizer, device=name, precision=precision)


def _show(subject: Subject, outcome: Outcome, *, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    if as_json:
        scores = [asdict(score) for score in outcome.scores]
        line = {"model": subject.name, "step": subject.step, "scores": scores, "settings": outcome.settings}
        typer.echo(json.dumps(line, ensure_ascii=False))
        return
    typer.echo(subject.name)
    for score in outcome.scores:
        value = "undefined" if score.value is None else f"{score.value:.5g}"
        error = "" if score.standard_error is None else f" ± {score.standard_error:.2g}"
        note = f"  ({score.note})" if score.note else ""
        typer.echo(f"  {score.evaluation:<16} {score.group:<32} {score.measure:<16} {value}{error}{note}")
