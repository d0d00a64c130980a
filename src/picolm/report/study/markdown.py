"""Panels as Markdown: for a pull request, a wiki, or a reader without a browser. Figures stand as their captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch

from picolm.report.headline import Headline
from picolm.report.panels.contract import Badge, Block, Cell, Command, Facts, Figures, Missing, Panel, Remark, Table
from picolm.report.shell import Top

_MEANINGFUL = re.compile(r"([\\`*_{}\[\]<>|~#])")


def as_markdown(top: Top, panels: Sequence[Panel]) -> str:
    """The page as Markdown text: headings, tables, facts and commands."""
    pieces = [f"# {escaped(top.title)}", escaped(top.subtitle)]
    if top.lead is not None:
        pieces += [f"**{top.lead.word}**", escaped(top.lead.paragraph)]
    pieces += [_headline(line) for line in top.headlines]
    if top.notices:
        pieces.append("**Look at this first**")
        pieces += [f"- {escaped(notice)}" for notice in top.notices]
    for panel in panels:
        pieces += _panel(panel)
    return _joined(pieces)


def escaped(text: str) -> str:
    """`text` as Markdown that shows it and nothing else: no markup, no HTML, on one line."""
    return _MEANINGFUL.sub(r"\\\1", " ".join(text.split()))


def _joined(pieces: Sequence[str]) -> str:
    """Paragraphs with an empty line between them, items of one list without."""
    text = ""
    before = ""
    for piece in (piece for piece in pieces if piece):
        together = before.startswith("- ") and piece.startswith("- ")
        text += ("" if not text else "\n" if together else "\n\n") + piece
        before = piece
    return text + "\n"


def _headline(line: Headline) -> str:
    detail = f" ({escaped(line.detail)})" if line.detail else ""
    return f"- {escaped(line.label)}: {escaped(line.value)}{detail}"


def _panel(panel: Panel) -> Iterator[str]:
    verdict = f" ({panel.verdict})" if panel.verdict else ""
    yield f"## {escaped(panel.title)}{verdict}"
    yield escaped(panel.sentence)
    for block in panel.blocks:
        yield from lines_of(block)


@singledispatch
def lines_of(block: Block) -> Iterator[str]:
    """The paragraphs of a block."""
    raise NotImplementedError(type(block).__name__)


@lines_of.register
def _(block: Table) -> Iterator[str]:
    if block.caption:
        yield f"**{escaped(block.caption)}**"
    lines = [_line(map(escaped, block.header)), _line("---" for _ in block.header)]
    yield "\n".join([*lines, *(_line(_cell(cell) for cell in row) for row in block.rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return f"**{cell.word}** {escaped(cell.detail)}".strip() if isinstance(cell, Badge) else escaped(cell)


@lines_of.register
def _(block: Facts) -> Iterator[str]:
    if block.title:
        yield f"**{escaped(block.title)}**"
    for name, value in block.facts:
        yield f"- {escaped(name)}: {escaped(value)}"


@lines_of.register
def _(block: Figures) -> Iterator[str]:
    for figure in block.figures:
        yield f"- Figure “{escaped(figure.title)}”. {escaped(figure.caption)}".rstrip()


@lines_of.register
def _(block: Command) -> Iterator[str]:
    yield escaped(block.does)
    yield f"    {' '.join(block.line.split())}"


@lines_of.register
def _(block: Missing) -> Iterator[str]:
    yield escaped(block.text)


@lines_of.register
def _(block: Remark) -> Iterator[str]:
    yield escaped(block.text)
