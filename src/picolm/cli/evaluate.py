"""`pico evaluate`: score the checkpoints of a run, or any model folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from picolm.evaluate.comparison import ModelRow
    from picolm.evaluate.contract import EvaluationConfig, NamedEvaluation, Outcome
    from picolm.evaluate.subject import Subject


def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, RUN@STEP, model folders or Hub names, also OWNER/NAME@REVISION.",
            show_default=False,
            metavar="TARGET...",
        ),
    ],
    steps: Annotated[
        str | None, typer.Option(help="Checkpoints of a run, such as `0,1000`. Default: all; with --table the last.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:KEY=VALUE,...]", help="Evaluation to run, such as `perplexity:data=texts`. Repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Take the evaluations from the section `evaluation` of this file.")] = None,
    precision: Annotated[str, typer.Option(help="`32-true`, `bf16-mixed` or `16-mixed`.")] = "32-true",
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `mps`, or `auto`.")] = "auto",
    table: Annotated[bool, typer.Option("--table", help="Models side by side, with the paper's Table 2 as quoted rows.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the table (.csv, .md, .tex) or everything (.json) to a file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON, one line a model.")] = False,
) -> None:
    """Score a run's checkpoints (the scores are kept in the run) or any model (they are printed)."""
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.evaluate.comparison import FORMATS

    wanted = _steps(steps)
    endings = ("json", *FORMATS)
    if output is not None and output.suffix.lstrip(".") not in endings:
        raise PicoError(f"--output {output}: not a known format", "end the name in " + ", ".join(f".{each}" for each in endings))
    subjects = _subjects(targets, wanted, last_only=table and wanted is None)
    chosen = _chosen_evaluations(metric or [], config, subjects)
    evaluated = []
    for subject in subjects:
        evaluated.append(_evaluate(subject, chosen, device, precision))
        if not table and output is None:
            _show(evaluated[-1], as_json=as_json)
    if table or output is not None:
        _put_out(evaluated, output, quoted=table)
    runs = list(dict.fromkeys(subject.run for subject in subjects if subject.run is not None))
    for run in runs:
        say(f"written: {run.evaluations}")
    if runs:
        say_next(f"pico report {runs[0].path}")


@dataclass(frozen=True)
class _Evaluated:
    """A subject, what was asked of it, and what came out."""

    subject: Subject
    parameters: int
    evaluations: list[NamedEvaluation]
    outcome: Outcome


def _steps(text: str | None) -> list[int] | None:
    from picolm.base.errors import PicoError

    if text is None:
        return None
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError as error:
        raise PicoError(f"--steps {text}: not a list of steps", "write numbers with commas, such as 0,100,1000") from error


def _subjects(targets: list[str], steps: list[int] | None, *, last_only: bool) -> list[Subject]:
    from picolm.evaluate.subject import find_subjects

    return [subject for target in targets for subject in find_subjects(target, steps, last_only=last_only)]


def _chosen_evaluations(metrics: list[str], config: Path | None, subjects: list[Subject]) -> EvaluationConfig:
    from picolm.base.config import parse_settings, read_yaml
    from picolm.base.errors import PicoError
    from picolm.evaluate.contract import EvaluationConfig
    from picolm.evaluate.subject import run_evaluation_config
    from picolm.evaluate.written import parse_metric

    run = next((subject.run for subject in subjects if subject.run is not None), None)
    if metrics or config is not None:
        section: dict[str, Any] = {} if config is None else dict(read_yaml(config).get("evaluation") or {})
        section |= {"metrics": [parse_metric(text) for text in metrics]} if metrics else {}
        chosen = parse_settings(EvaluationConfig, section, "--metric" if config is None else f"{config}: evaluation")
    elif run is not None:
        chosen = run_evaluation_config(run)
    else:
        raise PicoError("which evaluations?", "name some, such as --metric perplexity:data=texts.jsonl, or give --config")
    if not chosen.entries:
        raise PicoError("the configuration names no evaluation", "name some with --metric, or give --config")
    return chosen


def _evaluate(subject: Subject, config: EvaluationConfig, device: str, precision: str) -> _Evaluated:
    import torch

    from picolm.base.errors import PicoError
    from picolm.cli.console import say
    from picolm.evaluate.contract import build_evaluations, check_evaluations, run_evaluations
    from picolm.evaluate.head import vocabulary_of
    from picolm.evaluate.live import keep_items
    from picolm.evaluate.scorer import AUTOCAST, longest_sequence
    from picolm.evaluate.subject import run_data
    from picolm.records.evaluation import write_scores

    if precision not in (allowed := ("32-true", *AUTOCAST)):
        raise PicoError(f"--precision {precision}: not known", f"allowed: {', '.join(allowed)}")
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    model = subject.load_model().to(place)
    tokenizer = subject.load_tokenizer()
    data = None if subject.run is None else run_data(subject.run)
    longest, known = longest_sequence(model), vocabulary_of(model)
    evaluations = build_evaluations(config, data=data, tokenizer=tokenizer, max_seq_len=longest, vocab_size=known)
    check_evaluations(evaluations)
    say(f"scoring {subject.name}: {', '.join(named.label for named in evaluations)}")
    prefix = subject.prefix_token_id(tokenizer)
    outcome = run_evaluations(evaluations, model, tokenizer, device=place, precision=precision, prefix_token_id=prefix)
    if subject.run is not None and subject.step is not None:
        write_scores(subject.run, subject.step, subject.tokens, outcome.scores, outcome.settings)
        keep_items(subject.run, subject.step, evaluations)
    return _Evaluated(subject, sum(parameter.numel() for parameter in model.parameters()), evaluations, outcome)


def _show(evaluated: _Evaluated, *, as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(_as_json(evaluated), ensure_ascii=False))
        return
    typer.echo(evaluated.subject.name)
    for score in evaluated.outcome.scores:
        value = "undefined" if score.value is None else f"{score.value:.5g}"
        error = "" if score.standard_error is None else f" ± {score.standard_error:.2g}"
        chance = "" if not score.baseline else f"  (chance {score.baseline:.3g})"
        note = f"  ({score.note})" if score.note else ""
        typer.echo(f"  {score.evaluation:<16} {score.group:<32} {score.measure:<22} {value}{error}{chance}{note}")
    for label, settings in evaluated.outcome.settings.items():
        for sample in settings.get("samples", ()):
            typer.echo(f"  {label:<16} {sample['prompt']}|{sample['continuation']}")


def _as_json(evaluated: _Evaluated) -> dict[str, Any]:
    from dataclasses import asdict

    scores = [asdict(score) for score in evaluated.outcome.scores]
    subject = evaluated.subject
    return {"model": subject.name, "step": subject.step, "scores": scores, "settings": evaluated.outcome.settings}


def _put_out(evaluated: list[_Evaluated], output: Path | None, *, quoted: bool) -> None:
    import json

    from picolm.cli.console import say
    from picolm.evaluate.comparison import differences, quoted_rows, render_table
    from picolm.records import durable

    measured = [_row(each) for each in evaluated]
    labels = {label for row in measured for label in row.cells}
    rows = measured + [row for row in quoted_rows() if quoted and labels & row.cells.keys()]
    if output is None:
        typer.echo(render_table(rows, "md"), nl=False)
    elif output.suffix == ".json":
        content = [
            _as_json(each) | {"differences": _differences(row, measured)} for each, row in zip(evaluated, measured, strict=True)
        ]
        durable.write_text(output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    else:
        durable.write_text(output, render_table(rows, output.suffix.lstrip(".")))
    if output is not None:
        say(f"written: {output}")
    for difference in differences(measured):
        say(str(difference))


def _differences(row: ModelRow, measured: list[ModelRow]) -> list[dict[str, Any]]:
    from picolm.evaluate.comparison import differences

    return [each._asdict() for each in differences([measured[0], row])] if row is not measured[0] else []


def _row(evaluated: _Evaluated) -> ModelRow:
    from picolm.evaluate.comparison import ModelRow, headline_cells, short_count

    items = {named.label: values for named in evaluated.evaluations if (values := named.evaluation.item_values()) is not None}
    return ModelRow(
        model=evaluated.subject.name,
        parameters=short_count(evaluated.parameters),
        tokens=short_count(evaluated.subject.tokens),
        cells=headline_cells(evaluated.evaluations, evaluated.outcome.scores),
        items=items,
    )
