"""`pico demo`: the whole cycle on the built-in language, from nothing to a report, in a few minutes on a laptop CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

SLOW_SECONDS = 300


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, run and report.")] = Path("demo"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done, and the seconds, as JSON on stdout.")] = False,
) -> None:
    """Make data, train, evaluate, analyse and report: minutes on a laptop CPU."""
    import json

    from picolm.cli.console import say, say_next

    say("Pico demo: a small language model learns a small language, and we look inside while it does.")
    summary = run_demo(out, settings or [])
    total = sum(summary["seconds"].values())
    for phase, seconds in summary["seconds"].items():
        say(f"  {phase:<10}{seconds:6.1f} s")
    say(f"  {'total':<10}{total:6.1f} s" + ("" if total <= SLOW_SECONDS else "  (slower than the five minutes this aims at)"))
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(summary["report"])
    say_next(f"open {summary['report']} in a browser, or look at the run with: pico show {summary['run']}")


def run_demo(out: Path, settings: list[str]) -> dict[str, Any]:
    """The cycle in `out`; what was made and the seconds of each phase. Finished parts are not made again."""
    from picolm.analyze.config import load_analysis
    from picolm.analyze.engine import analyze_run
    from picolm.cli.console import TrainingProgress, say
    from picolm.data.demo import prepare_demo_data
    from picolm.records.rundir import open_run_directory
    from picolm.report.page import write_report
    from picolm.train.config import load_config
    from picolm.train.stop import STOPPED_EXIT_CODE
    from picolm.train.train import run_training

    seconds: dict[str, float] = {}
    config = load_config(shipped_config("demo.yaml"), [*demo_paths(out), *settings])
    with _timed(seconds, "data"):
        say("1. Data: sentences from a grammar whose entropy is known, a tokenizer trained on them, shards of tokens.")
        data = prepare_demo_data(
            out / "data",
            seed=config.training.seeds.data,
            train_tokens=config.training.max_steps * config.data.dataloader.batch_size * (config.model.max_seq_len + 1),
            vocab_size=config.model.vocab_size,
            row_length=config.model.max_seq_len + 1,
        )
    with _timed(seconds, "training"):
        say(f"2. Training: {config.training.max_steps} updates; perplexity and grammar are tested at every checkpoint.")
        with TrainingProgress(config.training.max_steps) as progress:
            outcome = run_training(config, progress)
    if not outcome.complete:
        say(f"stopped at step {outcome.step}; repeat the same command to continue")
        raise typer.Exit(STOPPED_EXIT_CODE)
    run = open_run_directory(outcome.run)
    with _timed(seconds, "analysis"):
        say("3. Analysis: the seven metrics of the paper's Table 5 on weights, gradients, activations and OV circuits.")
        rows = analyze_run(run, load_analysis("table5"))
    with _timed(seconds, "report"):
        say("4. Report: one page with everything, to open in a browser.")
        report = write_report([run], None)
    return {
        "run": str(run.path),
        "report": str(report),
        "steps": outcome.step,
        "checkpoints": run.steps(),
        "tokens": outcome.tokens,
        "rows": len(rows),
        "entropy_floor_nats_per_token": data.manifest.get("entropy_floor_nats_per_token"),
        "seconds": {phase: round(duration, 1) for phase, duration in seconds.items()},
    }


def shipped_config(name: str) -> Path:
    """A configuration that comes with the package: beside the code in a wheel, at the top of a source tree."""
    package = Path(__file__).resolve().parents[1]
    beside = package / "configs" / name
    return beside if beside.is_file() else package.parents[1] / "configs" / name


def demo_paths(out: Path) -> list[str]:
    """Overrides that move the demo's folders below `out`."""
    data = out / "data"
    return [
        f"data.dataset.name={data}",
        f"checkpointing.runs_dir={out / 'runs'}",
        f"checkpointing.learning_dynamics.eval_data={data}",
        f"evaluation.metrics=[{{name: perplexity, data: {data}}}, {{name: minimal_pairs, data: {data / 'minimal_pairs'}}}]",
    ]


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
