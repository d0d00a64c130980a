from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from report_example import PLACES, build_run

from picolm.base.registry import Named
from picolm.records import durable
from picolm.records.manifest import read_manifest, write_manifest
from picolm.records.rundir import RunDirectory
from picolm.report import charts
from picolm.report.health import health, sheet, summary
from picolm.report.inventory import inventory
from picolm.report.page import build_panels, make_report
from picolm.report.panels.contract import Choice, Missing, Passages, Remark, Table
from picolm.report.tables import read_report_data, read_run


def test_text_of_every_checkpoint_stands_in_order_and_the_last_is_shown_first(example_run: RunDirectory):
    (panel,) = build_panels(read_report_data([example_run]), ["samples"])
    (passages,) = [block for block in panel.blocks if isinstance(block, Passages)]
    assert [frame.label.split(",")[0] for frame in passages.frames][:3] == ["update 0", "update 1", "update 3"]
    assert passages.frames[-1].passages[0].lead == "The"
    assert passages.frames[0].passages[1].text == " the" * 8
    page = make_report([example_run], example_run.path.parent / "samples.html", panels=["samples"]).page.read_text(
        encoding="utf-8"
    )
    hidden = [line for line in page.splitlines() if 'data-frame="' in line]
    assert [line.endswith(" hidden>") for line in hidden] == [True] * 9 + [False]


def test_each_prompt_has_a_table_of_all_its_continuations(example_run: RunDirectory):
    (panel,) = build_panels(read_report_data([example_run]), ["samples"])
    tables = [block for block in panel.blocks if isinstance(block, Table)]
    assert [len(block.rows) for block in tables] == [10, 10]
    assert tables[1].rows[-1][0] == "600"


def test_text_of_many_checkpoints_is_thinned_and_the_page_says_so(example_run: RunDirectory):
    (panel,) = build_panels(read_report_data([example_run]), [Named.model_validate({"name": "samples", "most_steps": 4})])
    assert any(isinstance(block, Remark) and "4 of 10 checkpoints" in block.text for block in panel.blocks)


def test_places_of_a_spectrum_become_one_chart_per_layer_and_no_chart_of_their_own(example_run: RunDirectory):
    spectra, dynamics, heatmap = build_panels(read_report_data([example_run]), ["spectra", "dynamics", "heatmap"])
    (choice,) = [block for block in spectra.blocks if isinstance(block, Choice)]
    assert [figure.title for figure in choice.options[0].figures] == ["Layer 0", "Layer 1", "Layer 2", "Layer 3"]
    for figure in choice.options[0].figures:
        figure.chart.to_dict(validate=True)
        assert len(figure.data) == 10 * len(PLACES)
    assert not any("singular value" in figure.title.lower() for panel in (dynamics, heatmap) for figure in panel.figures())


def test_bands_of_a_spectrum_hold_its_middle():
    frame = pandas.DataFrame({"step": 1, "tokens": 10.0, "place": [0.0, 0.1, 0.25, 0.5, 0.9, 1.0], "value": [9, 7, 6, 5, 2, 1.0]})
    bands = charts.spectrum_over_time(frame, title="t").data
    assert bands[["share", "low", "high"]].to_numpy().tolist() == [[1.0, 1.0, 9.0], [0.8, 2.0, 7.0]]


def test_a_run_without_text_or_spectra_is_told_how_to_get_them(bare_run: RunDirectory):
    for panel in build_panels(read_report_data([bare_run]), ["samples", "spectra"]):
        assert panel.is_missing and isinstance(panel.blocks[0], Missing)


@pytest.fixture
def captured_run(tmp_path: Path) -> RunDirectory:
    """What `pico capture` leaves of a series whose tokens per step nobody told: no log, no tokens, two equal steps."""
    run = build_run(tmp_path / "pythia", steps=5, checkpoints=(0, 512))
    run.log_file.unlink()
    for step in run.steps():
        run.evaluation_file(step).unlink()
        folder = run.checkpoint(step)
        write_manifest(folder, replace(read_manifest(folder), tokens=None))
    identity = run.identity()
    run.write_identity({**identity, "capture": {"series": "EleutherAI/pythia-14m"}, "max_steps": None})
    sentence = "step 512 has the same weights as step 0 (equal SHA-256)"
    durable.write_json(run.source_file, {"format": "picolm.series/1", "series": "x", "steps": [0, 512], "problems": [sentence]})
    return run


def test_a_captured_series_of_unknown_tokens_is_not_said_to_have_none(captured_run: RunDirectory):
    tables = read_run(captured_run)
    assert not any("tokens" in line for line in sheet(tables) if line.startswith("progress"))
    assert summary(tables)["tokens"] is None
    assert inventory([captured_run])[0]["tokens"] == ""


def test_what_is_odd_about_a_captured_series_is_told_by_show_and_on_top_of_the_page(captured_run: RunDirectory, tmp_path: Path):
    assert health(read_run(captured_run))[0] == "step 512 has the same weights as step 0 (equal SHA-256)"
    assert not any("training log" in problem for problem in health(read_run(captured_run)))
    page = make_report([captured_run], tmp_path / "p.html", panels=["provenance"]).page.read_text(encoding="utf-8")
    assert "Look at this first" in page and "same weights as step 0" in page
