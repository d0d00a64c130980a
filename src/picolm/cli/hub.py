"""`pico hub push / sync / pull / verify`: version-controlled checkpoints on the Hugging Face Hub that can be proved right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from picolm.hub.outbox import Destination, Outbox
    from picolm.hub.patience import Patience
    from picolm.hub.survey import RemoteSeries
    from picolm.hub.verify import Report

app = typer.Typer(
    add_completion=False,
    help="Publish runs on the Hugging Face Hub, take them back, and prove a published series.",
    no_args_is_help=True,
)

Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="Repository of the Hub, with branch or tag.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be published; send and write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="Run folder, such as runs/demo.")],
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository to publish in; made if it is not there.")],
    steps: Annotated[str | None, typer.Option(help="Only these steps, such as 0,1000,2000. Default: every checkpoint.")] = None,
    parts: Annotated[
        str, typer.Option(help="Parts of each checkpoint, separated by commas; the weights are always among them.")
    ] = "weights,training_state,learning_dynamics",
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public. Default: private.")] = False,
    collection: Annotated[str | None, typer.Option(metavar="OWNER/TITLE-ID", help="Collection the repository joins.")] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Publish the checkpoints of a run: one commit and one tag each, on a branch with the run's name."""
    from picolm.base.errors import PicoError
    from picolm.hub.outbox import Destination, Outbox, check_destination
    from picolm.records.rundir import open_run_directory

    outbox = Outbox(open_run_directory(run))
    chosen = _steps(steps, outbox.run.steps())
    wanted = tuple(dict.fromkeys(["weights", *(part.strip() for part in parts.split(",") if part.strip())]))
    before = outbox.destination()
    results = before.results if before is not None and before.repo_id == to else ""
    destination = Destination(to, collection, not public, wanted, steps is None, results)
    _show_plan(outbox, check_destination(destination, "--to"), chosen)
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise PicoError("publishing needs your word", "add --yes, or --dry-run to only look")
        typer.confirm("Publish this?", abort=True, err=True)
    outbox.address(destination)
    for step in chosen:
        outbox.queue(step)
    _publish(outbox, onto=None)


@app.command()
def sync(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with an outbox.")],
    onto: Annotated[str | None, typer.Option(metavar="COMMIT", help="Go on after this commit, which somebody else made.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Publish what waits in the outbox of runs, also of one that is still training elsewhere."""
    from picolm.hub.outbox import Outbox
    from picolm.records.rundir import open_run_directory

    for path in runs:
        outbox = Outbox(open_run_directory(path))
        destination = outbox.require_destination()
        if dry_run:
            steps = None if destination.every_checkpoint else [entry.step for entry in outbox.waiting()]
            _show_plan(outbox, destination, outbox.run.steps() if steps is None else steps)
        else:
            _publish(outbox, onto)


def _publish(outbox: Outbox, onto: str | None) -> None:
    from picolm.cli.console import say, say_next
    from picolm.hub.client import connect, require_token
    from picolm.hub.patience import patience_of_a_person
    from picolm.hub.sync import Uploader

    require_token()
    uploader = Uploader(outbox, connect(), patience_of_a_person(say), say, onto)
    count = uploader.publish_waiting()
    results = uploader.publish_results()
    uploader.publish_page()
    uploader.join_collection()
    outbox.tell("idle")
    place = f"{outbox.require_destination().repo_id}, branch {outbox.run.name}"
    say(
        f"{count} checkpoint(s){' and new results' if results else ''} published: {place}"
        if count or results
        else f"up to date: {place}"
    )
    say_next(f"pico hub verify {outbox.require_destination().repo_id}@{outbox.run.name} {outbox.run.path}")


def _show_plan(outbox: Outbox, destination: Destination, steps: list[int]) -> None:
    """What will be published, on standard output."""
    from picolm.hub.plan import plan_sync

    plan = plan_sync(outbox, destination, steps)
    kind = "private if it is new" if destination.private else "public if it is new"
    typer.echo(f"repository  {destination.repo_id} ({kind})")
    typer.echo(f"branch      {plan.branch}")
    typer.echo("page        README.md and runs.json on main: names, sizes and hashes of the runs; one written by hand stays")
    if destination.collection_slug:
        typer.echo(f"collection  {destination.collection_slug}")
    shown = ", ".join(str(step) for step in plan.steps[:20]) + (f", ... ({len(plan.steps)})" if len(plan.steps) > 20 else "")
    typer.echo(f"steps       {shown or 'none: everything is published'}")
    typer.echo(f"size        {plan.total_bytes / 1e6:,.1f} MB in {len(plan.steps)} commit(s)")
    for name, size in sorted(plan.files.items()):
        typer.echo(f"  {size:>14,}  {name}")


def _steps(text: str | None, sealed: list[int]) -> list[int]:
    """The steps asked for, each of which must be there."""
    from picolm.base.errors import PicoError

    if text is None:
        return sealed
    asked = list(_numbers(text))
    missing = [step for step in asked if step not in sealed]
    if missing:
        raise PicoError(f"--steps: there is no checkpoint {missing[0]}", f"there are {', '.join(map(str, sealed[:20]))}")
    return asked


@app.command()
def pull(
    repository: Repository,
    out: Annotated[Path | None, typer.Option(help="Folder for the run. Default: runs/ and the name of the series.")] = None,
    steps: Annotated[str | None, typer.Option(help="Only these steps, such as 0,1000,2000. Default: all.")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PARTS", help="Only these parts: weights, training_state, learning_dynamics.")
    ] = None,
) -> None:
    """Take a published run back, every file checked: of picolm, of the original trainer, or one branch per step."""
    from picolm.cli.console import say, say_next
    from picolm.hub.pull import Wanted, pull_address
    from picolm.records.manifest import PARTS

    asked = None if steps is None else _numbers(steps)
    parts = PARTS if only is None else _parts(only)
    choose = lambda series, step: Wanted(asked if asked or step is None else (step,), parts)  # noqa: E731
    folder, series = pull_address(repository, out, choose, say)
    typer.echo(str(folder))
    say_next(f"pico show {folder}" if series.kind == "pico" else f"pico hub verify {repository}")


@app.command()
def verify(
    repository: Repository,
    run: Annotated[Path | None, typer.Argument(help="Run folder to compare a series of picolm with.", show_default=False)] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep what was seen, as JSON.")] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with what was kept before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find duplicate, missing, out-of-order and changed steps of a published series, from hashes alone."""
    import json

    from picolm.cli.console import say
    from picolm.hub.client import connect
    from picolm.hub.patience import patience_of_a_person
    from picolm.hub.survey import find_series, split_address
    from picolm.hub.verify import compare_with_report, compare_with_run
    from picolm.records import durable
    from picolm.records.rundir import open_run_directory

    repo_id, revision = split_address(repository)
    local = None if run is None else open_run_directory(run)
    api, patience = connect(), patience_of_a_person(say)
    found = patience.call(repo_id, lambda: find_series(api, repo_id, revision))
    reports = []
    for series in found:
        report = _look(api, patience, series)
        if local is not None and (len(found) == 1 or series.name == local.name):
            report.problems.extend(compare_with_run(series, local))
        if against is not None:
            report.problems.extend(compare_with_report(report, _earlier(against, report.name)))
        reports.append(report)
    content = [report.to_json() for report in reports]
    if save is not None:
        durable.write_json(save, content)
    if as_json:
        typer.echo(json.dumps(content, indent=1))
    for report in () if as_json else reports:
        typer.echo(f"{report.repo_id} {report.name or '(one branch per step)'}: {len(report.steps)} steps, {report.kind}")
        for problem in report.problems:
            typer.echo(f"  {problem}")
    if any(report.problems for report in reports):
        say(f"{sum(len(report.problems) for report in reports)} problem(s)")
        raise typer.Exit(1)
    say("every step is there once, in order, and is what its hashes say" + (f"; the same as {run}" if run is not None else ""))


def _look(api: HfApi, patience: Patience, series: RemoteSeries) -> Report:
    """What verifying a series finds, with a bar where that takes long."""
    from picolm.cli.progress import counting_bar
    from picolm.hub.verify import verify_series

    with counting_bar("verifying") as bar:

        def show(done: int, total: int) -> None:
            if bar is not None:
                bar(done, total, f"verifying {series.name}")

        return patience.call(series.repo_id, lambda: verify_series(api, series, show))


def _earlier(path: Path, name: str) -> dict[str, object]:
    import json

    from picolm.base.errors import PicoError

    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return next(entry for entry in kept if entry["series"] == name)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise PicoError(f"{path} holds no earlier look at {name!r}", "write one with --save FILE") from error


def _numbers(text: str) -> tuple[int, ...]:
    from picolm.base.errors import PicoError

    try:
        return tuple(sorted({int(piece) for piece in text.split(",")}))
    except ValueError as error:
        raise PicoError(f"--steps {text!r} is not a list of steps", "such as --steps 0,1000,2000") from error


def _parts(text: str) -> tuple[str, ...]:
    from picolm.base.errors import PicoError, suggestion
    from picolm.records.manifest import PARTS

    asked = tuple(piece.strip() for piece in text.split(","))
    for part in asked:
        if part not in PARTS:
            raise PicoError(f"{part!r} is not a part of a checkpoint", suggestion(part, PARTS))
    return asked
