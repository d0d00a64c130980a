from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from picolm.records.rundir import RunDirectory
from picolm.report.bundle import vega_bundle

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import altair, pandas
imported = time.perf_counter()
from pathlib import Path
from picolm.records.rundir import RunDirectory
from picolm.report.page import build_panels, quick_charts, usual_panels, write_report
from picolm.report.tables import read_report_data
run = RunDirectory(Path(sys.argv[1]))
write_report([run], Path(sys.argv[2]))
written = time.perf_counter()
data = read_report_data([run])
before = time.perf_counter()
with quick_charts():
    build_panels(data, usual_panels(data))
print(json.dumps({"import": imported - start, "report": written - start, "drawing": time.perf_counter() - before}))
"""


def test_a_report_takes_at_most_three_times_importing_and_drawing(example_run: RunDirectory, tmp_path: Path):
    vega_bundle()
    command = [sys.executable, "-c", PROGRAM, str(example_run.path), str(tmp_path / "page.html")]
    seconds = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert seconds["report"] <= 3 * (seconds["import"] + seconds["drawing"]), seconds


def test_the_bundle_is_kept_and_a_changed_copy_is_passed_over(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vega_bundle.cache_clear()
    first = vega_bundle()
    (kept,) = (tmp_path / "picolm").glob("vega-*.js")
    kept.write_text("alert(1)", encoding="utf-8")
    vega_bundle.cache_clear()
    assert vega_bundle() == first
    vega_bundle.cache_clear()
