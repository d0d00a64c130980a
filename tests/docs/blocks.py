"""The code blocks of a page, in order, and what is said about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGES = sorted(
    [TOP / "README.md", *(page for page in (TOP / "docs").rglob("*.md") if not {"reference", "_build"} & set(page.parts))]
)
RUN = ("sh", "python", "yaml")
SHOWN = ("text", "json", "{toctree}")
MARKERS = ("# needs a network", "# needs a login", "# needs a GPU", "# needs several machines", "# needs minutes")
"""First lines of blocks that cannot run everywhere, as the reader sees them too."""


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and where it begins."""

    language: str
    text: str
    line: int

    @property
    def needs(self) -> str:
        """The marker of a block that cannot run here, else nothing."""
        first = self.text.split("\n", 1)[0]
        return next((marker for marker in MARKERS if first.startswith(marker)), "")

    @property
    def file(self) -> str:
        """The file a block is the content of: a first line such as `# mine.py`."""
        found = re.match(r"# ([\w./-]+\.(?:py|yaml|toml))\b", self.text)
        return found.group(1) if found else ""


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    found, lines, begin, language = [], page.read_text(encoding="utf-8").split("\n"), -1, ""
    for number, line in enumerate(lines):
        fence = re.match(r"\s*```(.*)$", line)
        if fence is None:
            continue
        if begin < 0:
            begin, language = number + 1, fence.group(1).strip()
        else:
            found.append(Block(language, "\n".join(lines[begin:number]) + "\n", begin + 1))
            begin = -1
    assert begin < 0, f"{page}: a block that begins in line {begin} does not end"
    return found


def scenes_of(page: Path) -> list[str]:
    """What a page takes for granted, as it says at its top: `<!-- scene: demo, texts -->`."""
    found = re.search(r"<!-- scene: ([\w, -]+) -->", page.read_text(encoding="utf-8"))
    return [name.strip() for name in found.group(1).split(",")] if found else []
