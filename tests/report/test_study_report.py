from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pandas
import pytest
from judgement_example import few_predictions, hostile, make_judgement
from test_page import PAYLOAD, Page

from picolm.records.studydir import StudyDirectory
from picolm.report import charts
from picolm.report.chosen import find_chosen
from picolm.report.page import make_report
from picolm.report.panels.contract import Badge, Figures, Missing, Panel, Table
from picolm.report.spec import chart_spec
from picolm.report.study import wording
from picolm.report.study.markdown import as_markdown, escaped
from picolm.report.study.page import study_panels, study_top, visible_judgement, write_study_report
from picolm.study.judgement import Judgement, read_judgement, write_judgement


@pytest.fixture(scope="module")
def judgement(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    return make_judgement(tmp_path_factory.mktemp("judged"))


@pytest.fixture
def directory(tmp_path: Path) -> StudyDirectory:
    return StudyDirectory(tmp_path / "study", tmp_path / "study" / "study.yaml")


def cells(panel: Panel, caption: str) -> list[tuple[Any, ...]]:
    return next(list(block.rows) for block in panel.blocks if isinstance(block, Table) and block.caption == caption)


def panel_of(judgement: Judgement, start: str) -> Panel:
    return next(panel for panel in study_panels(judgement) if panel.title.startswith(start))


def test_the_page_begins_with_the_verdict_and_the_conclusion(judgement: Judgement, directory: StudyDirectory):
    text = write_study_report(directory, judgement).read_text(encoding="utf-8")
    head = text[text.index("<body>") : text.index("<nav")]
    assert '<strong class="verdict supported">supported</strong>' in head
    assert judgement.conclusion.split(".")[1].strip()[:30] in head.replace("&#34;", '"')
    assert judgement.statement in head


def test_page_markdown_and_judgement_lie_side_by_side(judgement: Judgement, directory: StudyDirectory, tmp_path: Path):
    assert write_study_report(directory, judgement) == directory.report_page
    assert directory.report_text.read_text(encoding="utf-8").startswith("# relora-merge-scale\n")
    elsewhere = write_study_report(directory, judgement, tmp_path / "elsewhere" / "found.html")
    assert read_judgement(elsewhere.with_suffix(".json")) == judgement


def test_what_a_study_report_must_show_is_there(judgement: Judgement, directory: StudyDirectory):
    text = directory.report_text if write_study_report(directory, judgement) else None
    assert text is not None
    shown = text.read_text(encoding="utf-8")
    assert judgement.lock_hash is not None
    for words in (
        judgement.lock_hash,  # the lock, and its time relative to the first run
        "locked 27.1 h before the first run that counts began",
        "training.relora.merge",  # what variants change
        "| tokenizer | yes | equal |",
        "headroom of final",  # checks
        "p floor",
        "adjusted p",
        "noise between A/A runs",
        "Seeds still needed",
        "    pico study run studies/relora-merge-scale",  # the command to extend
        "Nothing differs from what was declared and locked",
    ):
        assert words in shown, words


def test_only_settings_that_differ_are_listed_with_each_variants_value(judgement: Judgement):
    rows = cells(panel_of(judgement, "Variants"), "Variants and what they change")
    assert ("training.relora.merge", "as the base", "published", "specified") in rows
    assert [row[0] for row in rows] == ["role", "finished runs", "parameters", "training.method", "training.relora.merge"]


def test_the_table_of_predictions_has_raw_and_adjusted_p_with_the_floor(judgement: Judgement):
    rows = cells(panel_of(judgement, "Predictions"), "All predictions")
    first = rows[0]
    assert first[0] == "P1 (primary)" and first[2] == Badge("supported")
    assert first[4:] == ("0.01562", "0.01562", "0.01562", "0.01562", "6")
    assert rows[-1][2] == Badge("described") and rows[-1][4] == "not tested"


def test_the_p_of_a_refuted_prediction_is_that_of_its_contrary(tmp_path: Path):
    judged = make_judgement(
        tmp_path, **few_predictions(), final=lambda variant, seed: 3.0 + 0.001 * (seed % 3) + 0.3 * (variant == "specified")
    )
    found = judged.predictions[0]
    assert found.verdict == "refuted"
    assert wording.deciding_p(found) == (found.tests.p_refuted, found.tests.p_refuted_adjusted)
    assert found.tests.p_refuted == pytest.approx(1 / 64)


def test_the_effect_of_each_seed_is_drawn_with_interval_threshold_and_noise(judgement: Judgement):
    panel = panel_of(judgement, "P1")
    (figures,) = [block.figures for block in panel.blocks if isinstance(block, Figures)]
    tables = chart_spec(figures[0].chart).tables.values()
    seeds = next(table for table in tables if "seed" in table.columns)
    found = judgement.predictions[0]
    assert dict(zip(seeds["seed"], seeds["effect"], strict=True)) == {one.seed: one.effect for one in found.effects}
    spans = next(table for table in tables if "words" in table.columns and "low" in table.columns).set_index("name")
    assert spans.loc["mean, 95 %", "low"] == found.intervals[0].low
    assert spans.loc["noise (A/A)", "high"] == found.noise_sd
    marks = [list(table["value"]) for table in tables if list(table.columns) == ["value", "text"]]
    assert marks == [[0.0], [0.02]]


def test_pairs_join_the_runs_of_one_seed(judgement: Judgement):
    figure = next(one for panel in study_panels(judgement) for one in panel.figures() if one.name == "P1-pairs")
    by_seed = figure.data.groupby("seed")["variant"].agg(list)
    assert by_seed.tolist() == [["published", "specified"]] * 6
    assert {*figure.data["seed"]} == {11, 12, 13, 14, 15, 16}


def test_equivalence_is_drawn_with_its_margin_on_both_sides(judgement: Judgement):
    figure = next(one for panel in study_panels(judgement) for one in panel.figures() if one.name == "P2-effects")
    tables = list(chart_spec(figure.chart).tables.values())
    region = next(table for table in tables if "from" in table.columns)
    assert region[["from", "to"]].to_numpy().tolist() == [[-0.05, 0.05]]


def test_tuning_runs_are_in_no_chart_of_the_page(judgement: Judgement):
    tuned = [curve.model_copy(update={"phase": "tuning", "seed": 901}) for curve in judgement.curves[:2]]
    for panel in study_panels(judgement.model_copy(update={"curves": (*judgement.curves, *tuned)})):
        for figure in panel.figures():
            assert 901 not in set(figure.data.get("seed", pandas.Series(dtype=int)).dropna())


def test_a_diverged_run_is_told_with_how_it_counts_and_its_pair_is_hollow(tmp_path: Path):
    judged = make_judgement(tmp_path, **few_predictions(), status={("published", 13): "diverged"})
    rows = cells(panel_of(judged, "Failures"), "Runs that did not end well")
    assert rows[0][:4] == ("published, seed 13", "confirm", "diverged", "counts as the worst of all")
    figure = next(one for panel in study_panels(judged) for one in panel.figures() if one.name == "P1-effects")
    noted = figure.data.loc[figure.data["note"].fillna("") != "", "seed"].tolist()
    assert noted == [13] and "Hollow" in figure.caption


def test_an_invalid_study_leads_with_what_failed_and_claims_nothing(tmp_path: Path):
    judged = make_judgement(tmp_path, **few_predictions(), tampering=["runs/full-seed-11/logs/train.jsonl has changed"])
    text = as_markdown(study_top(judged), study_panels(judged))
    assert "runs/full-seed-11/logs/train.jsonl has changed" in text.split("## Predictions")[0]
    assert re.findall(r"\*\*(supported|refuted)\*\*", text) == []


def test_an_exploratory_study_shows_no_p_value(tmp_path: Path):
    judged = make_judgement(tmp_path, **few_predictions(), locked=False)
    panels = study_panels(judged)
    assert {row[4] for row in cells(panels[0], "All predictions")} == {"not tested"}
    assert not any(
        name.startswith("p of") for panel in panels for block in panel.blocks for name, _ in getattr(block, "facts", ())
    )
    assert study_top(judged).headlines[0].value == "never"


def test_a_lock_made_after_the_first_run_is_said_to_be_too_late(judgement: Judgement):
    late = judgement.model_copy(update={"locked": "2030-01-03T03:04:05+00:00"})
    assert wording.lock_before_runs(late).told == "too late"


def test_a_study_without_a_finished_pair_still_makes_a_page(judgement: Judgement, directory: StudyDirectory):
    bare = [
        found.model_copy(update={"effects": (), "mean": None, "intervals": (), "leave_one_out": (), "curve": None})
        for found in judgement.predictions
    ]
    empty = judgement.model_copy(update={"predictions": tuple(bare), "curves": (), "values": (), "checks": (), "parity": ()})
    panels = study_panels(empty)
    assert all(any(isinstance(block, Missing) for block in panel.blocks) for panel in panels if re.match(r"P\d:", panel.title))
    assert write_study_report(directory, empty).is_file()


def test_every_chart_of_a_study_is_a_valid_specification(judgement: Judgement):
    figures = [figure for panel in study_panels(judgement) for figure in panel.figures()]
    assert len(figures) >= 11
    for figure in figures:
        figure.chart.to_dict(validate=True)


def test_figures_of_a_study_are_written_in_the_style_asked_for(judgement: Judgement, directory: StudyDirectory, tmp_path: Path):
    few = judgement.model_copy(update={"predictions": judgement.predictions[:1], "curves": ()})
    write_study_report(directory, few, figures=tmp_path / "figures", style="slides")
    assert {path.name for path in (tmp_path / "figures").glob("*.svg")} == {"P1-effects.svg", "P1-pairs.svg"}
    root = ElementTree.parse(tmp_path / "figures" / "P1-effects.svg").getroot()
    assert float(root.attrib["width"]) > 860
    assert (tmp_path / "figures" / "P1-effects.pdf").read_bytes().startswith(b"%PDF")
    assert len(json.loads((tmp_path / "figures" / "P1-pairs.json").read_text(encoding="utf-8"))) == 12


def test_hostile_text_of_a_study_is_inert_in_page_and_markdown(judgement: Judgement, directory: StudyDirectory):
    planted = hostile(PAYLOAD, judgement)
    text = write_study_report(directory, planted).read_text(encoding="utf-8")
    page = Page(text)
    executable = [text for tag, values, text in page.raw if tag == "script" and values.get("type") != "application/json"]
    assert len(executable) == 2 and not any("pwned" in script for script in executable)
    assert not any(tag == "img" for tag, _ in page.tags) and "\x1b" not in text
    markdown = directory.report_text.read_text(encoding="utf-8")
    assert "pwned" in markdown and "\x1b" not in markdown
    outside_code = [line for line in markdown.splitlines() if not line.startswith("    ")]
    assert not any(re.search(r"(?<!\\)<", line) for line in outside_code)


def test_markdown_cells_cannot_break_out_of_their_table():
    assert escaped("a|b\n| c <b> `x`") == r"a\|b \| c \<b\> \`x\`"


@pytest.mark.parametrize(("low", "high"), [(math.log(0.9), math.log(1.3)), (math.log(0.01), math.log(3)), (-0.001, 0.001)])
def test_ticks_of_factors_are_round_and_within_the_axis(low: float, high: float):
    ticks = charts_factor_ticks(low, high)
    assert len(ticks) >= 2 and all(low <= tick <= high for tick in ticks)
    for tick in ticks:
        assert float(f"{math.exp(tick):.5g}") == pytest.approx(math.exp(tick), rel=1e-9)


def charts_factor_ticks(low: float, high: float) -> list[float]:
    from picolm.report.charts.study import factor_ticks

    return factor_ticks(low, high)


def test_an_open_interval_reaches_the_edge_of_the_chart():
    effects = pandas.DataFrame({"seed": [1, 2], "effect": [0.1, 0.2]})
    spans = pandas.DataFrame([{"name": "mean", "low": 0.05, "high": None, "mean": 0.15, "words": "w"}])
    tables = chart_spec(charts.seed_effects(effects, spans, title="t", axis="a")).tables.values()
    drawn = next(table for table in tables if "high" in table.columns)
    assert drawn["high"].iloc[0] > 0.2


def test_a_study_folder_is_reported_as_its_runs_with_the_verdict_first(judgement: Judgement, tmp_path: Path):
    make_judgement(tmp_path / "runs", **few_predictions())
    (tmp_path / "study.yaml").write_text("id: x\n", encoding="utf-8")
    write_judgement(tmp_path / "judgement.json", judgement)
    chosen = find_chosen([tmp_path])
    assert chosen.study is not None and chosen.page == tmp_path / "runs.html"
    text = make_report(chosen, panels=["verdict"]).page.read_text(encoding="utf-8")
    assert '<span class="verdict supported">' in text and "P1-effects" in text


def test_a_study_that_was_not_judged_says_so(tmp_path: Path):
    make_judgement(tmp_path / "runs", **few_predictions())
    (tmp_path / "study.yaml").write_text("id: x\n", encoding="utf-8")
    page = make_report(find_chosen([tmp_path]), panels=["verdict"]).page
    assert "was not judged yet" in page.read_text(encoding="utf-8")


def test_a_study_report_loads_no_torch(judgement: Judgement, tmp_path: Path):
    write_judgement(tmp_path / "judgement.json", judgement)
    program = (
        "import sys; from pathlib import Path; from picolm.records.studydir import StudyDirectory;"
        "from picolm.report.study.page import write_study_report; from picolm.study.judgement import read_judgement;"
        f"folder = Path({str(tmp_path)!r}); study = StudyDirectory(folder, folder / 'study.yaml');"
        "write_study_report(study, read_judgement(study.judgement_file));"
        "print([name for name in ('torch', 'transformers', 'lightning_fabric') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_text_of_a_judgement_is_made_visible(judgement: Judgement):
    assert visible_judgement(judgement.model_copy(update={"statement": "a\x1bb"})).statement == "a\\u{1b}b"
