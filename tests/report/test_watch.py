from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from report_example import build_run
from typer.testing import CliRunner

from picolm.base.errors import PicoError
from picolm.cli.show import show
from picolm.records import trainlog
from picolm.records.rundir import RunDirectory
from picolm.report.config import load_report_config
from picolm.report.page import make_report
from picolm.report.tables import read_run
from picolm.report.terminal import text_charts
from picolm.report.watch import watch_runs


def test_a_page_is_written_again_only_when_something_is_new(tmp_path: Path):
    run = build_run(tmp_path / "growing", steps=3, checkpoints=(0,), metrics=("gini",))
    run.write_identity(run.identity() | {"max_steps": 5})
    lives: list[bool] = []
    naps = iter([None, None, {"step": 4}, {"step": 5}])

    def sleep(seconds: float) -> None:
        row = next(naps)
        if row is not None:
            trainlog.append_row(run.log_file, row | {"tokens": 1, "loss": 1.0})

    def write(live: bool) -> Path:
        lives.append(live)
        return tmp_path / "page.html"

    watch_runs([run], write, every_seconds=1, say=lambda sentence: None, sleep=sleep)
    assert lives == [True, True, False]


def test_only_a_live_page_reads_itself_again(example_run: RunDirectory, tmp_path: Path):
    live = make_report([example_run], tmp_path / "live.html", panels=["loss"], reload_seconds=7.0).page.read_text(
        encoding="utf-8"
    )
    still = make_report([example_run], tmp_path / "still.html", panels=["loss"]).page.read_text(encoding="utf-8")
    assert '"reloadSeconds":7.0' in live and '"reloadSeconds":null' in still


def test_whole_tables_lie_beside_the_page_and_the_page_names_them(example_run: RunDirectory, tmp_path: Path):
    written = make_report([example_run], tmp_path / "page.html", panels=["loss"])
    assert {path.stem for path in written.tables} == {"log", "scores", "rows", "checkpoints", "samples"}
    rows = pandas.read_parquet(tmp_path / "page-data" / "rows.parquet")
    assert len(rows) == len(read_run(example_run).rows)
    assert "page-data/rows.parquet" in written.page.read_text(encoding="utf-8")


def test_panels_and_their_options_come_from_a_file(tmp_path: Path):
    file = tmp_path / "report.yaml"
    file.write_text("panels: [loss, {name: dynamics, most_steps: 10}]\ntitle: Ours\n", encoding="utf-8")
    config = load_report_config(file)
    assert config.panels is not None and config.panels[1].options == {"most_steps": 10} and config.title == "Ours"
    file.write_text("panel: [loss]\n", encoding="utf-8")
    with pytest.raises(PicoError, match="panel is not a setting"):
        load_report_config(file)


def test_losses_and_metrics_are_drawn_as_text(example_run: RunDirectory):
    pytest.importorskip("uniplot")
    blocks = text_charts(read_run(example_run), ["per"], width=70)
    assert len(blocks) == 2 and "loss in nats per token" in blocks[0] and "Proportional effective rank of weights" in blocks[1]
    assert max(len(line) for line in blocks[0].splitlines()) <= 80
    assert "\x1b" not in "".join(blocks)


def test_without_the_drawing_library_the_rest_is_still_shown(example_run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    import typer

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    app = typer.Typer()
    app.command()(show)
    result = CliRunner().invoke(app, [str(example_run.path)])
    assert result.exit_code == 0 and "600 of 600 updates" in result.stdout and "pip install uniplot" in result.stderr


def test_a_metric_without_rows_is_named(example_run: RunDirectory):
    with pytest.raises(PicoError, match="--metric gni") as raised:
        text_charts(read_run(example_run), ["gni"])
    assert "gini" in raised.value.hint


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path):
    import typer

    run = build_run(tmp_path / "hostile", steps=5, checkpoints=(0, 5), metrics=("gini",))
    run.write_identity(run.identity() | {"name": "a\x1b]0;owned\x07b", "variant": "\x9b31m", "data": {"name": "\x1b[2J"}})
    app = typer.Typer()
    app.command()(show)
    result = CliRunner().invoke(app, [str(run.path), "--metric", "gini"])
    assert result.exit_code == 0
    assert not any(
        (ord(character) < 32 and character not in "\n\t") or 127 <= ord(character) < 160 for character in result.stdout
    )
    assert json.loads(CliRunner().invoke(app, [str(run.path), "--json"]).stdout)["name"] == "a\\u{1b}]0;owned\\u{7}b"
