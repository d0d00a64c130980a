"""Every notebook under examples runs from top to bottom, and what is stored of its output is small."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .blocks import TOP

NOTEBOOKS = sorted((TOP / "examples" / "notebooks").glob("*.ipynb"))
LARGEST_BYTES = 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    said = [str(output.get("text", "")) for cell in cells for output in cell.outputs]
    assert not any("error:" in text for text in said), said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_small_output_and_no_paths_of_the_machine(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < LARGEST_BYTES
    assert "/tmp/" not in text and "site-packages" not in text
