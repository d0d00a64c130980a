"""A headless Chromium and pages to open in it. Where either is missing the tests skip and say so."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

from report_example import build_run

from picolm.records.rundir import RunDirectory
from picolm.report.page import write_report

CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install picolm[browser]")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


@dataclass
class Opened:
    """An open page with everything that went wrong in it and everything it asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def ready(self) -> Any:
        """The page once every visible chart is drawn."""
        self.page.wait_for_selector("html[data-ready=true]", timeout=60_000)
        return self.page


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_it(path: Path, *, width: int = 1280, scheme: str = "light") -> Opened:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return build_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="session")
def report_page(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([run], tmp_path_factory.mktemp("pages") / "demo.html")


@pytest.fixture(scope="session")
def compared_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two variants with two seeds each."""
    small: dict[str, Any] = {"steps": 40, "checkpoints": (0, 4, 40), "metrics": ("gini", "per"), "parts": ("attention.v_proj",)}
    folder = tmp_path_factory.mktemp("compared")
    runs = [
        build_run(folder / f"{name}-{seed}", variant=name, seed=seed, **small) for name in ("plain", "relora") for seed in (1, 2)
    ]
    return write_report(runs, tmp_path_factory.mktemp("pages") / "compared.html")
