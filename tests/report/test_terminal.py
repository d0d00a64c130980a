from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from report_example import build_run
from typer.testing import CliRunner

from picolm.cli.report import report
from picolm.cli.runs import runs
from picolm.cli.show import show
from picolm.records import trainlog
from picolm.records.rundir import CheckpointFolder, RunDirectory
from picolm.report.health import health
from picolm.report.tables import read_run


def invoke(verb: object, *words: object):
    app = typer.Typer()
    app.command()(verb)  # type: ignore[type-var]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_show_tells_identity_progress_losses_and_health(example_run: RunDirectory):
    result = invoke(show, example_run.path)
    assert result.exit_code == 0, result.output
    for words in ("demo", "pico_decoder", "600 of 600 updates, finished", "validation loss", "entropy floor"):
        assert words in result.stdout


def test_show_as_json_is_json(example_run: RunDirectory):
    content = json.loads(invoke(show, example_run.path, "--json").stdout)
    assert content["finished"] is True and content["checkpoints"] == 10


def test_runs_lists_what_exists(example_run: RunDirectory):
    result = invoke(runs, example_run.path.parent)
    assert result.exit_code == 0 and "demo" in result.stdout and "600/600" in result.stdout


def test_verify_names_the_damaged_file_and_fails(tmp_path: Path):
    run = build_run(tmp_path / "hurt", steps=5, checkpoints=(0, 5))
    assert invoke(runs, "verify", run.path).exit_code == 0
    weights = CheckpointFolder(run.checkpoint(5)).weights
    weights.write_bytes(b"x" + weights.read_bytes()[1:])
    result = invoke(runs, "verify", run.path)
    assert result.exit_code == 1
    assert "step 0: every file" in result.stdout and "step 5: model.safetensors has changed" in result.stdout


def test_a_finished_run_with_all_its_values_is_healthy(example_run: RunDirectory):
    assert health(read_run(example_run, rows=False)) == []


def test_an_update_that_was_skipped_is_named_with_its_step(tmp_path: Path):
    run = build_run(tmp_path / "ill", steps=5, checkpoints=(0,))
    trainlog.append_row(run.log_file, {"step": 6, "tokens": 10, "loss": None, "skipped_updates": 1})
    assert "1 update was skipped: loss or gradient was not finite, first at or before step 6" in health(read_run(run))


def test_an_update_without_a_language_model_loss_is_no_problem(tmp_path: Path):
    run = build_run(tmp_path / "episodes", steps=5, checkpoints=(0,))
    trainlog.append_row(run.log_file, {"step": 6, "tokens": 10, "loss": None, "skipped_updates": 0, "query_loss_after": 1.0})
    assert not any("loss" in problem for problem in health(read_run(run)))


def test_report_prints_the_path_of_the_page(example_run: RunDirectory, tmp_path: Path):
    result = invoke(report, example_run.path, "--out", tmp_path / "page.html", "--panel", "loss")
    assert result.exit_code == 0 and result.stdout.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize("words", [("verify",), ("verify", "a", "b"), ("a", "b")])
def test_runs_refuses_what_it_does_not_understand(words: tuple[str, ...]):
    assert invoke(runs, *words).exit_code != 0
