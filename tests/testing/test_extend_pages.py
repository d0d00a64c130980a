"""One page per sort of extension, at most one screen, whose example is the file that the foreign package ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picolm.testing.sorts import SORTS

ROOT = Path(__file__).parents[2]
LINES_OF_A_SCREEN = 70


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name)
def test_each_sort_has_a_page_of_one_screen_with_the_packages_own_example(sort):
    text = (ROOT / "docs" / "guides" / "extend" / f"{sort.name}.md").read_text()
    assert len(text.splitlines()) <= LINES_OF_A_SCREEN
    module = ROOT / "examples" / "plugin_package" / "src" / "pico_example" / f"{sort.name.replace('-', '_')}.py"
    (shown,) = re.findall(r"```python\n# mine.py\n(.*?)```", text, re.DOTALL)
    assert shown == module.read_text(), f"the page and {module.name} differ"
    assert sort.contract in text
    assert "pico check ./mine.py:" in text
