from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judgement_example import hostile, make_judgement
from test_report_page import blank_charts, until

from picolm.records.studydir import StudyDirectory
from picolm.report.study.page import write_study_report
from picolm.study.judgement import Judgement

pytestmark = pytest.mark.browser

PAYLOAD = """</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'";=1+1"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    return make_judgement(tmp_path_factory.mktemp("judged"), status={("published", 13): "diverged"})


@pytest.fixture(scope="module")
def study_page(judged: Judgement, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return write_study_report(StudyDirectory(folder, folder / "study.yaml"), judged)


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (900, "dark"), (1920, "light")])
def test_a_study_page_is_drawn_without_complaint_or_request_and_fits(
    open_page: Callable[..., Any], study_page: Path, width: int, scheme: str
):
    opened = open_page(study_page, width=width, scheme=scheme)
    page = opened.ready()
    assert blank_charts(page) == []
    assert opened.complaints == [] and opened.requests == [study_page.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    cut = """values => values.filter(value => value.scrollWidth > value.clientWidth + 1).map(value => value.textContent)"""
    assert page.eval_on_selector_all(".headlines .value", cut) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_accessibility_scan_of_a_study_is_clean(open_page: Callable[..., Any], study_page: Path, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(study_page, scheme=scheme).ready()
    page.eval_on_selector_all("details.table", "tables => tables.forEach(t => { t.open = true; })")
    problems = axe.Axe().run(page).response["violations"]
    assert [(problem["id"], problem["nodes"][0]["html"][:120]) for problem in problems] == []


def test_the_verdict_stands_on_the_first_screen(open_page: Callable[..., Any], study_page: Path):
    page = open_page(study_page, width=900).ready()
    assert page.locator(".lead").bounding_box()["y"] < 400
    assert page.locator(".lead strong").inner_text() == "supported"


def test_planted_scripts_in_a_study_never_run(open_page: Callable[..., Any], judged: Judgement, tmp_path: Path):
    page_file = write_study_report(StudyDirectory(tmp_path, tmp_path / "study.yaml"), hostile(PAYLOAD, judged))
    opened = open_page(page_file)
    page = opened.ready()
    page.hover("#figure-0 svg")
    assert page.evaluate("window.pwned") is None and page.locator("main img").count() == 0
    assert opened.complaints == []


def test_the_slider_shows_the_text_of_another_checkpoint(open_page: Callable[..., Any], report_page: Path):
    opened = open_page(report_page)
    page = opened.ready()
    shown = "document.querySelector('.frame:not([hidden])').textContent"
    assert "girl near" in page.evaluate(shown)
    slider = page.locator("[data-passages] input")
    slider.focus()
    page.keyboard.press("Home")
    until(page, f"{shown}.includes(' the the the')")
    assert page.locator("[data-passages] output").inner_text().startswith("update 0")
    assert slider.get_attribute("aria-valuetext") == page.locator("[data-passages] output").inner_text()
    assert page.locator(".frame:not([hidden])").count() == 1 and opened.complaints == []
