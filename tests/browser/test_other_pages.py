from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from report_example import build_run
from test_report_page import blank_charts

from picolm.records import table
from picolm.records.evaluation import Score, write_scores
from picolm.records.rundir import RunDirectory
from picolm.records.table import Row
from picolm.report.page import make_report, write_report

pytestmark = pytest.mark.browser

PAYLOAD = """</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'";=1+1"""


def test_a_page_of_several_runs_is_drawn_without_complaint(open_page: Callable[..., Any], compared_page: Path):
    opened = open_page(compared_page)
    page = opened.ready()
    page.click(".choice [data-layer='1']")
    page.wait_for_timeout(500)
    assert opened.complaints == [] and opened.requests == [compared_page.as_uri()]
    assert blank_charts(page) == []
    states = page.eval_on_selector_all("[data-figure]", "cards => cards.filter(c => c.offsetParent).map(c => c.dataset.state)")
    assert set(states) == {"drawn"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_accessibility_scan_of_several_runs_is_clean(open_page: Callable[..., Any], compared_page: Path, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = open_page(compared_page, scheme=scheme).ready()
    problems = axe.Axe().run(page).response["violations"]
    assert [(problem["id"], problem["nodes"][0]["html"][:120]) for problem in problems] == []


def test_planted_scripts_never_run(open_page: Callable[..., Any], tmp_path: Path):
    run = build_run(tmp_path / "hostile", checkpoints=(0, 5), steps=20, metrics=("gini",), parts=("attention.v_proj",))
    run.write_identity(run.identity() | {"name": PAYLOAD, "data": {"name": PAYLOAD}, PAYLOAD: PAYLOAD})
    texts = {"samples": [{"prompt": PAYLOAD, "continuation": PAYLOAD}]}
    write_scores(
        run, 5, 5, [Score(PAYLOAD, PAYLOAD, 0.5, group=PAYLOAD), Score(PAYLOAD, PAYLOAD, 0.6, group="b")], {PAYLOAD: texts}
    )
    row = Row("x", 5, PAYLOAD, PAYLOAD, PAYLOAD, PAYLOAD, 0.5, layer=0, options=json.dumps({"a": PAYLOAD}), partner=PAYLOAD)
    table.append_rows(run.analysis("hostile"), [row, Row(**{**vars(row), "step": 0})])
    opened = open_page(write_report([run], tmp_path / "hostile.html"))
    page = opened.ready()
    for index in range(page.locator(".choice select").first.locator("option").count()):
        page.locator(".choice select").first.select_option(index=index)
        page.wait_for_timeout(300)
    page.hover("#figure-0 svg")
    assert page.evaluate("window.pwned") is None
    assert page.locator("main img").count() == 0
    assert opened.complaints == []


def test_a_run_with_nothing_makes_a_page_that_says_so(open_page: Callable[..., Any], tmp_path: Path):
    run = RunDirectory(tmp_path / "bare")
    run.write_identity({"format": "picolm.run/1", "name": "bare"})
    opened = open_page(write_report([run]))
    assert "has no losses yet" in opened.ready().locator("#absent").inner_text()
    assert opened.complaints == []


def test_a_live_page_reads_itself_again_and_comes_back_as_it_was_left(
    open_page: Callable[..., Any], run: RunDirectory, tmp_path: Path
):
    out = tmp_path / "live.html"
    make_report([run], out, title="before", panels=["dynamics"], reload_seconds=3)
    page = open_page(out).ready()
    page.click(".choice [data-layer='2']")
    page.select_option(".choice select", index=3)
    make_report([run], out, title="after", panels=["dynamics"], reload_seconds=3)
    end = time.monotonic() + 20
    while page.locator("h1").inner_text() != "after":
        assert time.monotonic() < end
        page.wait_for_timeout(200)
    page.wait_for_selector(".choice [data-layer='2'][aria-pressed=true]")
    assert page.eval_on_selector(".choice select", "select => select.selectedIndex") == 3


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """200 checkpoints x 12 layers x 12 heads x 20 metrics."""
    run = build_run(
        tmp_path_factory.mktemp("large") / "large", checkpoints=(0,), layers=12, metrics=("gini",), parts=("attention.v_proj",)
    )
    step, layer, head, metric = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (200, 12, 12, 20)), indexing="ij"))
    size = step.size
    value = 0.3 + 0.002 * step * (layer + 1) / 12 + np.random.default_rng(0).normal(0, 0.02, size)
    known = {
        "run": np.full(size, "large"),
        "variant": np.full(size, "plain"),
        "seed": np.full(size, 1),
        "split": np.full(size, ""),
        "step": step * 100,
        "tokens": step * 409_600,
        "data_type": np.full(size, "weights"),
        "value": value,
        "component": np.full(size, "ov_circuit"),
        "part": np.full(size, "ov_circuit"),
        "layer": layer,
        "head": head,
        "metric": np.array([f"metric_{index}" for index in range(20)])[metric],
        "options": np.full(size, "{}"),
        "partner": np.full(size, ""),
        "note": np.full(size, ""),
    }
    columns = [
        pyarrow.array(known[f.name], type=f.type) if f.name in known else pyarrow.nulls(size, f.type) for f in table.schema()
    ]
    folder = run.analysis("large")
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(
        pyarrow.Table.from_arrays(columns, schema=table.schema()), folder / "part-000000-00000000.parquet"
    )
    return run


def test_a_large_run_opens_within_three_seconds_and_stays_below_15_megabytes(
    open_page: Callable[..., Any], large_run: RunDirectory, tmp_path: Path
):
    path = write_report([large_run], tmp_path / "large.html")
    assert path.stat().st_size < 15e6
    shown = """[...document.querySelectorAll('[data-figure]')].filter(card => card.getBoundingClientRect().top < innerHeight
               && card.offsetParent).every(card => card.dataset.state === 'drawn')"""
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        page = open_page(path).page
        while not page.evaluate(shown):
            page.wait_for_timeout(20)
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 3.0
    assert "Drawn at 80 of 200 checkpoints" in page.content()
