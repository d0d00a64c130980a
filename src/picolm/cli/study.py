"""`pico study`: a declared hypothesis over variants x seeds, from the file to the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from picolm.records.studydir import StudyDirectory
    from picolm.study.lock import StudyLock
    from picolm.study.plan import StudyPlan

REFUSED_EXIT_CODE = 7
FAILED_EXIT_CODE = 8
STOPPED_EXIT_CODE = 75
"""2 is a mistake in the call or the files; 0 and 3 to 6 are verdicts."""

app = typer.Typer(
    add_completion=False,
    help="Declared hypotheses over variants x seeds: lock, plan, run, judge, report.",
    no_args_is_help=True,
)

Study = Annotated[Path, typer.Argument(help="Study file, its folder, or a folder of results.")]
Out = Annotated[Path | None, typer.Option(help="Folder of lock, runs and results; default: that of the study file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
AtOnce = Annotated[int | None, typer.Option("--at-once", min=1, help="Runs at once; default: as many as cores and memory allow.")]


@app.command("lock")
def lock_command(study: Study, out: Out = None, as_json: Json = False) -> None:
    """Resolve every variant and write down what is compared and predicted, with hashes, before the runs that count.

    A repeated command changes nothing. If the study changed since, a new version is written, with the hash of the one before it;
    if runs that count were there already, nothing can be confirmed any more: the mode becomes exploratory.
    """
    import json

    from picolm.cli.console import say, say_next
    from picolm.study.locking import lock_study

    directory = _directory(study, out)
    outcome = lock_study(directory, say)
    lock = outcome.lock
    if as_json:
        facts = {
            "written": outcome.written,
            "changes": outcome.changes,
            **lock.model_dump(mode="json", exclude={"base", "cells"}),
        }
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    if not outcome.written:
        say(f"locked already, and nothing changed: version {lock.version}, {lock.hash[:12]}")
    else:
        runs = len({cell.run for cell in lock.cells})
        say(f"locked: version {lock.version}, {lock.hash[:12]}, {lock.mode}, {runs} possible runs")
    for change in outcome.changes:
        say(f"  changed: {change}")
    if lock.mode_reason:
        say(f"exploratory, although the file says confirmatory: {lock.mode_reason}")
    say(f"wrote {directory.lock_file}" if outcome.written else f"see {directory.lock_file}")
    say_next(_command("plan", study, out))


@app.command("plan")
def plan_command(
    study: Study,
    out: Out = None,
    speed: Annotated[float | None, typer.Option(min=1e-9, metavar="TOKENS", help="Tokens per second of one run.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the speed on the first steps of each variant.")] = False,
    at_once: AtOnce = None,
    as_json: Json = False,
) -> None:
    """Say what a study costs and what it can find; refuse one that cannot succeed or cannot disagree, and say what would mend it.

    Exit code 7: refused. The time is known from --speed, from runs that ended, or with --measure.
    """
    import json
    from dataclasses import asdict

    from picolm.cli.console import say, say_next
    from picolm.cli.study_lines import plan_lines
    from picolm.study.locking import current_lock
    from picolm.study.plan import configuration_of, first_cell, memory_of_job, plan_study
    from picolm.study.speed import measured_seconds

    directory = _directory(study, out)
    lock = current_lock(directory, say)
    threads = lock.config.execution.threads

    def measured(variant: str) -> float:
        say(f"measuring {variant}")
        return measured_seconds(configuration_of(lock, first_cell(lock, variant)), threads)

    planned = plan_study(
        directory,
        lock,
        at_once=_executor(lock, at_once, memory_of_job(lock)).slots(),
        tokens_per_second=speed,
        measure=measured if measure else None,
    )
    if as_json:
        facts = {**asdict(planned), "core_hours": planned.core_hours, "hours_left": planned.hours_left}
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        for line in plan_lines(planned):
            typer.echo(line)
    _say_notes(planned, say)
    if planned.refusals:
        raise typer.Exit(REFUSED_EXIT_CODE)
    say_next(_command("run", study, out))


def _say_notes(planned: StudyPlan, say: Any) -> None:
    for note in planned.notes:
        say(f"note: {note}")
    if not planned.seconds_per_run:
        say("note: for the time give --speed TOKENS_PER_SECOND, or --measure")
    for refusal in planned.refusals:
        say(f"refused: {refusal.reason}")
        say(f"  mend: {refusal.mend}")


@app.command("run")
def run_command(
    study: Study,
    out: Out = None,
    at_once: AtOnce = None,
    force: Annotated[bool, typer.Option("--force", help="Run also what `pico study plan` refuses.")] = False,
) -> None:
    """Carry out what a study still needs: variants x seeds, several at once; the same command goes on after a stop or a kill.

    A study that is not locked is locked first. Exit code 7: refused by the plan; 8: some runs failed; 75: stopped.
    """
    from picolm.cli.console import say, say_next
    from picolm.cli.study_lines import StudyProgress, failing_lines
    from picolm.study.locking import lock_to_run
    from picolm.study.plan import memory_of_job, plan_study
    from picolm.study.runner import run_study, stopping_like_ctrl_c

    directory = _directory(study, out)
    lock = lock_to_run(directory, say)
    executor = _executor(lock, at_once, memory_of_job(lock))
    planned = plan_study(directory, lock, at_once=executor.slots())
    if planned.refusals and not force:
        _say_notes(planned, say)
        say_next(_command("plan", study, out))
        raise typer.Exit(REFUSED_EXIT_CODE)
    slots = executor.slots()
    say(f"{lock.study}: version {lock.version} ({lock.mode}), {slots} run(s) at once, {executor.threads} thread(s) each")
    try:
        with stopping_like_ctrl_c(), StudyProgress() as progress:
            outcome = run_study(directory, lock, executor, progress)
    except KeyboardInterrupt:
        say("stopped; what was made is saved")
        say_next(f"repeat the same command to continue: {_command('run', study, out)}")
        raise typer.Exit(STOPPED_EXIT_CODE) from None
    for line in failing_lines(outcome):
        say(line)
    if not outcome.complete:
        say_next(_command("run", study, out))
        raise typer.Exit(FAILED_EXIT_CODE)
    say(f"all {outcome.ended} runs have ended: {directory.runs}")
    say_next(_command("judge", study, out))


def _executor(lock: StudyLock, at_once: int | None, memory_bytes: int) -> Any:
    from picolm.study.executor import LocalProcesses

    execution = lock.config.execution
    return LocalProcesses(threads=execution.threads, memory_bytes=memory_bytes, most=at_once or execution.at_once)


def _command(verb: str, study: Path, out: Path | None) -> str:
    return f"pico study {verb} {study}" + (f" --out {out}" if out is not None else "")


def _directory(study: Path, out: Path | None) -> StudyDirectory:
    from picolm.records.studydir import open_study_directory

    return open_study_directory(study, out)


@app.command("judge")
def judge_command(
    study: Study,
    out: Out = None,
    verify_weights: Annotated[
        bool, typer.Option("--verify-weights", help="Also re-hash every file of every checkpoint.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check what was run against what was locked, then say of every prediction whether the data support or refute it.

    Exit code 0: supported; 3: refuted; 4: inconclusive; 5: invalid; 6: exploratory: of the primary predictions together.
    """
    from picolm.cli.console import say, say_next
    from picolm.cli.study_lines import judgement_lines
    from picolm.study.judging import judge_study

    directory = _directory(study, out)
    judgement = judge_study(directory, run_command=_command("run", study, out), weights=verify_weights)
    if as_json:
        typer.echo(judgement.model_dump_json(indent=1))
    else:
        for line in judgement_lines(judgement):
            typer.echo(line)
    say(f"wrote {directory.judgement_file}")
    say_next(_command("report", study, out) if not judgement.extend_command else judgement.extend_command)
    raise typer.Exit(judgement.exit_code)


@app.command("report")
def report_command(
    study: Study,
    out: Out = None,
    page: Annotated[Path | None, typer.Option(help="File to write; default: report.html beside the judgement.")] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every chart here: SVG, PDF, PNG, and its numbers as CSV and JSON."),
    ] = None,
    style: Annotated[str, typer.Option(help="Size and type of the figures: `paper` or `slides`.")] = "paper",
    as_json: Json = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write what was found as one self-contained page, with the same as Markdown beside it; nothing is judged anew."""
    import webbrowser

    from picolm.cli.console import say, say_next
    from picolm.report.study.page import write_study_report
    from picolm.study.judgement import read_judgement

    directory = _directory(study, out)
    judgement = read_judgement(directory.judgement_file)
    written = write_study_report(directory, judgement, page, figures=figures, style=style)
    typer.echo(judgement.model_dump_json(indent=1) if as_json else str(written))
    say(f"wrote {written} and {written.with_suffix('.md')}" + (f", figures in {figures}" if figures is not None else ""))
    if open_page:
        webbrowser.open(written.resolve().as_uri())
    else:
        say_next(f"open {written} in a browser, or look at the runs with: pico report {directory.path}")
