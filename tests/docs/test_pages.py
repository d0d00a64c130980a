"""Every code block of the README and of the documentation runs as printed, page by page, in order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picolm.analyze.config import AnalysisConfig
from picolm.base.config import Settings, parse_settings, parse_yaml
from picolm.report.config import ReportConfig
from picolm.study.config import StudyConfig
from picolm.train.config import RunConfig, parse_config

from .blocks import MARKERS, PAGES, RUN, SHOWN, TOP, Block, blocks_of, scenes_of
from .scenes import SCENES

PAGE_SECONDS = 500
MOST_MARKED = 15
"""Blocks that may need what a test machine lacks; more of them would make the promise hollow."""


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes each set of scenes once, and gives out copies."""
    made: dict[tuple[str, ...], Path] = {}

    def stage(names: list[str], folder: Path) -> None:
        key = tuple(names)
        if key not in made:
            before = key[:-1]
            made[key] = tmp_path_factory.mktemp("scene-" + "-".join(key) if key else "scene")
            if before:
                stage(list(before), made[key])
            SCENES[key[-1]](made[key])
        shutil.copytree(made[key], folder, dirs_exist_ok=True)

    return stage


class Reader:
    """Somebody who types what a page says, from top to bottom, in one shell and one Python."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, {"__name__": "page"}

    def follow(self, block: Block) -> None:
        os.chdir(self._folder)
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        if block.language == "yaml":
            check_yaml(block)
        elif block.language == "sh":
            self._type(block)
        elif not block.file:
            exec(compile(block.text, f"line {block.line}", "exec"), self._names)

    def _type(self, block: Block) -> None:
        """Run the lines in a shell that stops at the first failure, and stay where it went."""
        script = f"set -eo pipefail\n{block.text}\npwd > '{self._folder}/.where'\n"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "BROWSER": "true", "COLUMNS": "120"}
        where = self._folder / ".where"
        result = subprocess.run(
            ["bash", "-c", script.replace(f"'{self._folder}/.where'", f"'{where}'")],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PAGE_SECONDS,
        )
        assert result.returncode == 0, f"{block.text}\n{result.stdout[-1500:]}\n{result.stderr[-3000:]}"
        self._folder = Path(where.read_text().strip())
        where.unlink()


def check_yaml(block: Block) -> None:
    """The block is a file, or a part of one, of one of the four kinds."""
    content = parse_yaml(block.text, f"line {block.line}")
    if content.keys() <= RunConfig.model_fields.keys():
        parse_config(content, f"line {block.line}", default_name="page")
        return
    kinds: list[type[Settings]] = [AnalysisConfig, StudyConfig, ReportConfig]
    kind = max(kinds, key=lambda kind: len(content.keys() & kind.model_fields.keys()))
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    if required <= content.keys():
        parse_settings(kind, content, f"line {block.line}")
        return
    for key, value in content.items():  # a part of a study
        assert key in kind.model_fields, f"line {block.line}: {key}"
        parse_settings(part_of(kind, key), {key: value}, f"line {block.line}")


def part_of(kind: type[Settings], key: str) -> type[Settings]:
    """A model with one field of another."""
    import pydantic

    field = kind.model_fields[key]
    return pydantic.create_model(f"part_{key}", __base__=Settings, **{key: (field.annotation, field)})  # type: ignore[call-overload]


def to_follow(page: Path) -> list[Block]:
    """What a reader of the page types."""
    return [block for block in blocks_of(page) if block.language in RUN and not block.needs]


@pytest.mark.parametrize("page", filter(to_follow, PAGES), ids=lambda page: str(page.relative_to(TOP)))
def test_a_page_can_be_followed_from_top_to_bottom(page: Path, stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if scenes := scenes_of(page):
        stages(scenes, tmp_path)
    reader = Reader(tmp_path)
    for block in to_follow(page):
        reader.follow(block)  # stops at the first block that fails


def test_every_block_says_what_language_it_is_in():
    strange = [
        (str(page.relative_to(TOP)), block.line, block.language)
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in (*RUN, *SHOWN)
    ]
    assert strange == []


def test_few_blocks_need_what_not_everybody_has():
    marked = [(page.name, block.line) for page in PAGES for block in blocks_of(page) if block.needs]
    assert len(marked) <= MOST_MARKED, marked


def test_no_command_hides_in_an_indented_block():
    hidden = [
        (page.name, line)
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith(("    pico ", "    pip ", "    make "))
    ]
    assert hidden == []


def test_markers_stand_in_the_page_where_a_reader_sees_them():
    assert all(marker.startswith("# needs ") for marker in MARKERS)
