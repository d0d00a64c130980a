from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser

WIDTHS = (360, 1280, 1920)


def until(page: Any, condition: str, seconds: float = 10.0) -> None:
    """Wait for a JavaScript condition. The page forbids `eval`, which Playwright's own waiting needs."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(30)


def blank_charts(page: Any) -> list[str]:
    """Titles of the visible charts without a single drawn mark: no line, dot, cell or area with an outline."""
    return page.eval_on_selector_all(
        "[data-figure]",
        """cards => cards.filter(card => card.offsetParent).filter(card => ![...card.querySelectorAll(
             ':is(.mark-line, .mark-symbol, .mark-rect, .mark-area) :is(path, line)')].some(mark => {
               const box = mark.getBoundingClientRect();
               return box.width > 1 || box.height > 1;
             })).map(card => card.querySelector('h3').textContent)""",
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_without_complaint_or_request(
    open_page: Callable[..., Any], report_page: Path, width: int, scheme: str
):
    opened = open_page(report_page, width=width, scheme=scheme)
    page = opened.ready()
    states = page.eval_on_selector_all("[data-figure]", "cards => cards.filter(c => c.offsetParent).map(c => c.dataset.state)")
    assert len(states) > 8 and set(states) == {"drawn"}
    assert blank_charts(page) == []
    assert opened.complaints == []
    assert [url for url in opened.requests if url != report_page.as_uri()] == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_no_chart_is_wider_than_its_card(open_page: Callable[..., Any], report_page: Path, width: int):
    page = open_page(report_page, width=width).ready()
    too_wide = page.eval_on_selector_all(
        "[data-figure]",
        """cards => cards.filter(c => c.offsetParent).filter(c => {
             const card = c.getBoundingClientRect();
             return [...c.querySelectorAll('svg, svg text')].some(e => e.getBoundingClientRect().right > card.right + 1);
           }).map(c => c.querySelector('h3').textContent)""",
    )
    assert too_wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_accessibility_scan_is_clean(open_page: Callable[..., Any], report_page: Path, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(report_page, scheme=scheme).ready()
    page.eval_on_selector_all("details.table", "tables => tables.forEach(t => { t.open = true; })")
    results = axe.Axe().run(page).response
    problems = [(problem["id"], [node["html"][:120] for node in problem["nodes"][:2]]) for problem in results["violations"]]
    assert problems == []


def test_choosing_a_layer_sets_it_apart_in_every_chart(open_page: Callable[..., Any], report_page: Path):
    page = open_page(report_page).ready()
    fade = "[...document.querySelector('[data-choice]').querySelectorAll('.option:not([hidden]) [data-figure]')]"
    fade += ".map(card => [...card.querySelectorAll('.mark-line path')]"
    fade += ".filter(path => path.hasAttribute('opacity') && Number(path.getAttribute('opacity')) < 0.5).length)"
    assert set(page.evaluate(fade)) == {0}
    page.click(".choice [data-layer='2']")
    until(page, f"({fade}).every(faded => faded === 3)")
    assert page.get_attribute(".choice [data-layer='2']", "aria-pressed") == "true"
    page.keyboard.press("Escape")
    until(page, f"({fade}).every(faded => faded === 0)")
    assert page.get_attribute(".choice [data-layer='']", "aria-pressed") == "true"


def test_choosing_another_matrix_draws_its_charts(open_page: Callable[..., Any], report_page: Path):
    opened = open_page(report_page)
    page = opened.ready()
    page.locator("[data-choice] select").first.select_option(index=5)
    until(page, "[...document.querySelectorAll('.option:not([hidden]) [data-figure]')].every(c => c.dataset.state === 'drawn')")
    assert page.locator("[data-choice]").first.locator(".option:not([hidden])").count() == 1
    assert opened.complaints == []


def test_numbers_and_drawing_can_be_saved_from_the_page(open_page: Callable[..., Any], report_page: Path):
    page = open_page(report_page).ready()

    def save(kind: str) -> str:
        page.click("#figure-0 summary")
        with page.expect_download() as download:
            page.click(f"#figure-0 [data-download={kind}]")
        return Path(download.value.path()).read_text(encoding="utf-8")

    rows = list(csv.DictReader(io.StringIO(save("csv"))))
    assert any(row["curve"] == "training" for row in rows)
    assert "var(--" not in save("svg")


def test_everything_can_be_reached_with_the_keyboard(open_page: Callable[..., Any], report_page: Path):
    page = open_page(report_page).ready()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20))"))
    assert reached[0].startswith("Skip") and "theme" in reached
    assert any("Evaluation" in text for text in reached) and "↓" in reached


def test_the_theme_button_turns_the_page_dark_and_back(open_page: Callable[..., Any], report_page: Path):
    page = open_page(report_page).ready()
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.click("#theme")
    assert page.evaluate(color) != light
    page.click("#theme")
    assert page.evaluate(color) == light


def test_a_dark_page_prints_on_white(open_page: Callable[..., Any], report_page: Path):
    page = open_page(report_page, scheme="dark").ready()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(22, 25, 29)"
