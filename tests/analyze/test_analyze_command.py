"""`pico analyze`: what it prints and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from picolm.base.errors import PicoError
from picolm.cli.analyze import analyze
from picolm.records.rundir import RunDirectory

app = typer.Typer()
app.command()(analyze)


def test_summary_says_what_was_done_and_what_is_next(run: RunDirectory) -> None:
    result = CliRunner().invoke(app, [str(run.path), "table5"], catch_exceptions=False)
    output = result.stdout.splitlines()
    assert output[0].startswith("1,050 rows, 1,050 of them new, 72 undefined:")
    assert "set aside: cka takes only activations: not applied to weights, gradients, first_order" in output
    assert any(line.split()[:4] == ["cka", "simple", "activations", "val"] for line in output)
    assert any("condition_number: singular: numerical rank 8 of 32" in line for line in output)
    assert result.stderr.splitlines()[-1] == f"next: pico report {run.path}"


def test_json_has_one_object_per_row(run: RunDirectory, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{analysis_name: mine, steps: [0], metrics: [gini], components: [{simple: {layer_suffixes: swiglu.w_2}}]}")
    output = CliRunner().invoke(app, [str(run.path), str(file), "--json"], catch_exceptions=False).stdout.splitlines()
    rows = [json.loads(line) for line in output]
    assert [(row["metric"], row["layer"], row["head"]) for row in rows] == [("gini", 0, None), ("gini", 1, None)]


def test_folder_that_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PicoError, match="not a run folder"):
        CliRunner().invoke(app, [str(tmp_path), "table5"], catch_exceptions=False)


def test_following_that_is_stopped_before_the_first_checkpoint_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory(tmp_path / "young")
    directory.write_identity({"name": "young", "max_steps": 10})

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    with pytest.raises(PicoError, match="there is no checkpoint yet"):
        CliRunner().invoke(app, [str(directory.path), "table5", "--follow"], catch_exceptions=False)


def test_following_a_finished_run_ends_at_once(run: RunDirectory) -> None:
    result = CliRunner().invoke(app, [str(run.path), "table5", "--follow"], catch_exceptions=False)
    assert result.stdout.splitlines()[0].startswith("1,050 rows, 1,050 of them new, 72 undefined:")
