"""What a panel is: a function on the tables of a report that returns a title, a sentence, a definition and things to show.

To add one, copy a neighbour. Keyword-only parameters are its settings. A panel that lacks data returns `Missing` with a sentence
that says what is missing; it does not fail and does not vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from picolm.base.registry import Registry

if TYPE_CHECKING:
    import pandas

_MODULES = (
    "verdict",
    "loss",
    "comparison",
    "evaluation",
    "samples",
    "dynamics",
    "heatmap",
    "spectra",
    "similarity",
    "cost",
    "provenance",
)

PANELS = Registry(
    "panel",
    builtin_modules=tuple(f"picolm.report.panels.{name}" for name in _MODULES),
)

DEFAULT_PANELS = ("loss", "evaluation", "samples", "dynamics", "heatmap", "spectra", "similarity", "cost", "provenance")
"""Panels of the page of one run, top to bottom."""

SEVERAL_PANELS = ("comparison", *DEFAULT_PANELS)
"""Panels of the page of several runs."""

STUDY_PANELS = ("verdict", *SEVERAL_PANELS)
"""Panels of the page of a study's runs."""


@dataclass(frozen=True)
class Figure:
    """One chart with the numbers behind it: drawn on the page, and exported as SVG, PDF, PNG, CSV and JSON."""

    name: str
    """Unique in a report; the stem of exported files."""
    title: str
    chart: Any
    """An Altair chart."""
    data: pandas.DataFrame
    """The numbers behind the chart, whole: what is exported and downloaded."""
    caption: str = ""
    size: Literal["small", "medium", "wide"] = "small"
    """Room on the page: one place of a row, two, or the whole row."""
    height: int = 220
    """Pixels on the page."""


@dataclass(frozen=True)
class Figures:
    """Charts side by side."""

    figures: tuple[Figure, ...]
    layer_legend: bool = False
    """Whether one legend of the model's layers, which also selects, stands above them."""


@dataclass(frozen=True)
class Choice:
    """Several sets of charts of which the reader sees one at a time."""

    label: str
    """What is chosen, such as `Matrix`."""
    options: tuple[Option, ...]
    layer_legend: bool = False


@dataclass(frozen=True)
class Option:
    """One set of charts, and its place in the list the reader chooses from."""

    group: str
    label: str
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()
    """What is missing from the set."""


@dataclass(frozen=True)
class Badge:
    """A cell of a table whose word stands out: a verdict, or passed, failed, reported."""

    word: str
    """Also chooses the colour."""
    detail: str = ""


Cell: TypeAlias = str | Badge


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    open: bool = False
    """Shown unfolded."""


@dataclass(frozen=True)
class Passage:
    """Text that continues other text."""

    lead: str
    text: str


@dataclass(frozen=True)
class Frame:
    """The passages of one moment."""

    label: str
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Passages:
    """Text of several moments of which the reader sees one, chosen with a slider; at first the last."""

    label: str
    """What the slider moves over, such as `Checkpoint`."""
    frames: tuple[Frame, ...]
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    facts: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True)
class Command:
    """A line to copy into a terminal."""

    line: str
    does: str
    """What it does, in one sentence."""


@dataclass(frozen=True)
class Missing:
    """A sentence that says which data are missing and how to get them."""

    text: str


@dataclass(frozen=True)
class Remark:
    """A sentence about what is shown, such as how it was thinned."""

    text: str


Block: TypeAlias = Figures | Choice | Table | Passages | Facts | Command | Missing | Remark


@dataclass(frozen=True)
class Panel:
    """One section of a report."""

    title: str
    sentence: str
    """Plain words: what the reader sees here."""
    definition: str
    """How the numbers are defined; paragraphs separated by an empty line."""
    blocks: tuple[Block, ...]
    verdict: str = ""
    """The verdict the panel is about, set beside its title; empty: none."""

    @property
    def is_missing(self) -> bool:
        """Whether the panel has nothing to show but what it lacks."""
        return all(isinstance(block, Missing) for block in self.blocks)

    def figures(self) -> list[Figure]:
        """Every figure of the panel, in order."""
        found: list[Figure] = []
        for block in self.blocks:
            if isinstance(block, Figures):
                found += block.figures
            if isinstance(block, Choice):
                found += [figure for option in block.options for figure in option.figures]
        return found


PanelFunction: TypeAlias = Callable[..., Panel]
panel = PANELS.register
"""Decorator: `@panel("loss")` on a function `(data: ReportData, *, options...) -> Panel`."""
