from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_example import FLOOR, build_run

from picolm.base.errors import PicoError
from picolm.records import table
from picolm.records.evaluation import Score, write_scores
from picolm.records.rundir import RunDirectory
from picolm.records.table import Row
from picolm.report.chosen import find_chosen
from picolm.report.page import build_panels, make_report, write_report
from picolm.report.panels.contract import DEFAULT_PANELS, Missing
from picolm.report.shell import prose
from picolm.report.tables import read_report_data
from picolm.report.visible import visible_text

PAYLOAD = """</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">'";=1+1\x1b]0;x\x07"""


class Page(HTMLParser):
    """Elements, inline scripts and styles of a page as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, dict[str, str | None], str]] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.raw.append((*self._open, data))
            self._open = None


def policy_of(page: Page) -> str:
    return next(str(values["content"]) for tag, values in page.tags if values.get("http-equiv") == "Content-Security-Policy")


def test_nothing_in_the_page_points_outside_it(example_page: str):
    for tag, values in Page(example_page).tags:
        for name in ("src", "href", "action", "data", "srcset"):
            value = values.get(name)
            assert value is None or value.startswith("#"), (tag, value)


def test_every_script_and_style_is_allowed_by_its_hash_and_nothing_else_is(example_page: str):
    page = Page(example_page)
    policy = policy_of(page)
    assert "unsafe" not in policy and "default-src 'none'" in policy and "connect-src" not in policy
    for tag, values, text in page.raw:
        if values.get("type") == "application/json":
            continue
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy, tag
    assert not any(name.startswith("on") or name == "style" for _, values in page.tags for name in values)


def test_every_embedded_table_is_json_with_a_specification(example_page: str):
    figures = [json.loads(text) for _, values, text in Page(example_page).raw if values.get("type") == "application/json"]
    specs = [figure["spec"] for figure in figures if "spec" in figure]
    assert len(specs) > 30
    for spec in specs:
        assert spec["width"] == "container" and spec["datasets"]


def test_the_floor_stands_in_the_page(example_page: str):
    assert f"entropy floor {FLOOR:.3f}" in example_page


def test_hostile_text_is_inert_everywhere_on_the_page(tmp_path: Path):
    run = build_run(tmp_path / "hostile", checkpoints=(0, 5), steps=20, metrics=("gini",), parts=("attention.v_proj",))
    identity = run.identity() | {"name": PAYLOAD, "variant": PAYLOAD, PAYLOAD: PAYLOAD}
    run.write_identity(identity | {"data": {"name": PAYLOAD}, "model": {"type": PAYLOAD}})
    run.config_file.write_text(json.dumps({PAYLOAD: PAYLOAD}), encoding="utf-8")
    texts = {"samples": [{"prompt": PAYLOAD, "continuation": PAYLOAD}]}
    write_scores(run, 5, 5, [Score(PAYLOAD, PAYLOAD, 0.5, group=PAYLOAD)], {PAYLOAD: texts})
    row = Row(
        "x",
        5,
        PAYLOAD,
        PAYLOAD,
        PAYLOAD,
        PAYLOAD,
        0.5,
        layer=0,
        options=json.dumps({"a": PAYLOAD}),
        partner=PAYLOAD,
        note=PAYLOAD,
    )
    table.append_rows(run.analysis("hostile"), [row, Row(**{**vars(row), "value": None, "step": 0})])
    text = write_report([run], tmp_path / "out.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "\x1b" not in text and "\x07" not in text
    assert not any(tag == "img" for tag, _ in page.tags)
    executable = [text for tag, values, text in page.raw if tag == "script" and values.get("type") != "application/json"]
    assert len(executable) == 2 and not any("pwned" in script for script in executable)
    assert "pwned" in text


@pytest.mark.parametrize("text", ["\x00", "\u202e", "\u2028", "\ud800", "\x9b"])
def test_characters_one_cannot_see_are_written_as_code_points(text: str):
    assert visible_text(f"a{text}b") == f"a\\u{{{ord(text):x}}}b"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("use `pico <run>` & wait", "use <code>pico &lt;run&gt;</code> &amp; wait"),
        ("one ` alone <b>", "one ` alone &lt;b&gt;"),
        ("`<script>`\x07", "<code>&lt;script&gt;</code>\\u{7}"),
    ],
)
def test_names_between_backticks_are_code_and_all_else_is_text(text: str, html: str):
    assert prose(text) == html


def test_ordinary_text_stays_as_it_is():
    assert visible_text("naïve 北京 — 'a'\n\tb") == "naïve 北京 — 'a'\n\tb"


def test_a_run_without_anything_says_what_is_missing(bare_run: RunDirectory):
    panels = build_panels(read_report_data([bare_run]), DEFAULT_PANELS)
    for panel in panels:
        assert any(isinstance(block, Missing) for block in panel.blocks), panel.title
    assert write_report([bare_run]).is_file()


def test_one_checkpoint_without_layers_or_tokens_still_makes_a_page(bare_run: RunDirectory):
    row = Row("bare", 7, "weights", "simple", "output_norm", "gini", 0.4)
    table.append_rows(bare_run.analysis("a"), [row, Row(**{**vars(row), "metric": "per", "value": None, "note": "all zero"})])
    write_scores(bare_run, 7, None, [Score("perplexity", "loss_per_token", None, note="no text")], {})
    assert "all zero" in write_report([bare_run]).read_text(encoding="utf-8")


def test_operations_are_those_the_training_counted_and_else_an_estimate(tmp_path: Path):
    run = build_run(tmp_path / "counted", steps=5, checkpoints=(0,))
    (facts,) = build_panels(read_report_data([run]), ["cost"])[0].blocks
    assert dict(facts.facts)["operations"] == "148 GFLOP (estimate)"
    rows = [json.loads(line) for line in run.log_file.read_text(encoding="utf-8").splitlines()]
    spent = [{**row, "flops": 3e9 * row["step"], "method_tokens": 10 * row["step"], "paused_seconds": 0.5} for row in rows]
    run.log_file.write_text("".join(json.dumps(row) + "\n" for row in spent), encoding="utf-8")
    cost, loss = build_panels(read_report_data([run]), ["cost", "loss"])
    told = dict(cost.blocks[0].facts)
    assert told["operations"] == "15 GFLOP" and told["tokens of the method"].strip() == "50"
    assert told["pauses between updates"] == "2.5 s"
    assert not {"Flops", "Method tokens", "Paused seconds"} & {figure.title for figure in loss.figures()}


def test_two_runs_make_one_page_with_what_differs(tmp_path: Path):
    small: dict[str, Any] = {
        "steps": 40,
        "checkpoints": (0, 40),
        "layers": 2,
        "metrics": ("gini",),
        "parts": ("attention.v_proj",),
    }
    runs = [build_run(tmp_path / variant, variant=variant, **small) for variant in ("plain", "relora")]
    text = write_report(runs, tmp_path / "two.html").read_text(encoding="utf-8")
    assert "Settings that differ between the runs" in text and "relora" in text


def test_a_panel_of_ones_own_is_named_by_its_file(tmp_path: Path, bare_run: RunDirectory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from picolm.report.panels.contract import Panel, Remark\n"
        "def note(data, *, words: str = 'hello'):\n"
        "    return Panel('Mine', 'A note.', 'No numbers.', (Remark(words + ' from ' + data.runs[0].name),))\n",
        encoding="utf-8",
    )
    page = make_report([bare_run], tmp_path / "p.html", panels=["./mine.py:note"]).page
    assert "hello from bare" in page.read_text(encoding="utf-8")


def test_an_unknown_panel_suggests_the_nearest(bare_run: RunDirectory):
    with pytest.raises(PicoError, match="panel `los` is not known") as raised:
        make_report([bare_run], panels=["los"])
    assert "loss" in raised.value.hint


def test_a_folder_of_runs_stands_for_its_runs(example_run: RunDirectory):
    assert [run.name for run in find_chosen([example_run.path.parent]).runs] == ["demo"]
    with pytest.raises(PicoError, match="not a run folder"):
        find_chosen([example_run.path / "logs"])


def test_a_report_loads_no_torch(example_run: RunDirectory, tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from picolm.records.rundir import RunDirectory;"
        "from picolm.report.page import write_report;"
        f"write_report([RunDirectory(Path({str(example_run.path)!r}))], Path({str(tmp_path / 'a.html')!r}));"
        "print([name for name in ('torch', 'transformers', 'lightning_fabric') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_script_of_the_page_needs_eval(example_page: str):
    scripts = [text for tag, values, text in Page(example_page).raw if tag == "script" and "type" not in values]
    assert all("ast:true" in re.sub(r"\s", "", script) for script in scripts[-1:])
