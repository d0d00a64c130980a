"""Takes the pictures of the documentation: `make pictures`. Needs Debian's chromium and the extra `browser`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 1360


def photograph(page_file: Path, picture: Path, *, width: int, height: int, scheme: str = "light") -> None:
    """The top of a report as a PNG."""
    program = shutil.which("chromium")
    if program is None:
        sys.exit("there is no chromium on the path: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("html[data-ready=true]", timeout=60_000)
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="index.html of the demo run's report")
    arguments = parser.parse_args()
    photograph(arguments.report, Path(__file__).with_name("demo-report.png"), width=WIDTH, height=HEIGHT)
