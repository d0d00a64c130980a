"""The built site: complete, and it fetches nothing from anywhere. Needs `make docs` before."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from picolm.analyze.metrics.contract import METRICS
from picolm.base.config import walk_fields
from picolm.cli.main import VERBS
from picolm.model.decoder import DecoderConfig
from picolm.train.config import RunConfig

from .blocks import PAGES, TOP

SITE = TOP / "docs" / "_build" / "html"
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src", "object": "data"}
NOT_FETCHED = {"canonical", "next", "prev", "index", "search", "genindex", "author", "help"}


class Fetches(HTMLParser):
    """Addresses a browser would fetch on opening a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in FETCHED and not set((given.get("rel") or "").split()) & NOT_FETCHED:
            self.found.append(given.get(FETCHED[tag]) or "")


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    found = sorted(SITE.rglob("*.html"))
    assert found, "make docs has not been run"
    return found


def test_every_page_of_the_documentation_is_in_the_site(pages: list[Path]):
    written = [page.relative_to(TOP / "docs").with_suffix(".html") for page in PAGES if page.is_relative_to(TOP / "docs")]
    assert [str(page) for page in written if SITE / page not in pages] == []


def test_no_page_fetches_anything_from_elsewhere(pages: list[Path]):
    for page in pages:
        parser = Fetches()
        parser.feed(page.read_text(encoding="utf-8"))
        remote = [address for address in parser.found if re.match(r"(?:[a-z]+:)?//", address)]
        assert remote == [], page


def test_no_style_sheet_fetches_anything_from_elsewhere():
    for sheet in SITE.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)'\"]+", text) == [], sheet


def test_every_setting_of_a_training_file_stands_in_the_reference_with_its_sentence(pages: list[Path]):
    text = (SITE / "reference" / "training.html").read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]+>", "", text).replace("&lt;", "<").split())
    for key, field in walk_fields(RunConfig[DecoderConfig]):
        assert key.rsplit(".", 1)[-1] in plain
        words = " ".join((field.description or "").replace("`", "").split())
        assert words[:60] in plain.replace("&gt;", ">").replace("&amp;", "&"), key


def test_every_command_and_every_metric_stands_in_the_reference():
    commands = (SITE / "reference" / "commands.html").read_text(encoding="utf-8")
    names = (SITE / "reference" / "names.html").read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"pico {verb}" not in commands] == []
    assert [entry.name for entry in METRICS.entries() if f">{entry.name}<" not in names] == []


def test_formulas_are_drawn_by_the_browser_itself():
    text = (SITE / "concepts" / "synthetic-language.html").read_text(encoding="utf-8")
    assert "<math" in text
    assert "tex-mml-chtml" not in text  # the script of MathJax
