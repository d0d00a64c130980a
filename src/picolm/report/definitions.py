"""What each metric means, in the words of the code that computes it; read from its source, because running it needs torch."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

TITLES = {
    "per": "Proportional effective rank",
    "gini": "Gini coefficient",
    "hoyer": "Hoyer sparsity",
    "condition_number_above_tolerance": "Condition number above tolerance",
    "mutual_knn": "Mutual nearest neighbours",
    "procrustes_angle": "Procrustes angle",
    "rankme": "RankMe",
}
ACRONYMS = {"cka": "CKA", "cca": "CCA", "pwcca": "PWCCA", "svcca": "SVCCA", "ov": "OV", "qk": "QK"}


def metric_name(name: str) -> str:
    """The name of a metric in a title."""
    return TITLES.get(name) or title_of(name)


def title_of(name: str) -> str:
    """A name of code as words: `minibatch_cka` is `Minibatch CKA`."""
    words = [ACRONYMS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def describe_metric(name: str) -> str:
    """One paragraph on a metric: its name, and the docstring of the function that computes it."""
    text = _docstrings().get(name)
    if text is None:
        return f"{metric_name(name)} (`{name}`): defined outside this package; whoever provides it describes it."
    return f"{metric_name(name)} (`{name}`): {' '.join(text.split())}"


@functools.cache
def _docstrings() -> dict[str, str]:
    folder = Path(__file__).parents[1] / "analyze" / "metrics"
    return {name: text for path in sorted(folder.glob("*.py")) for name, text in _metrics_in(path)}


def _metrics_in(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node)
            for name in filter(None, map(_registered_name, node.decorator_list)):
                yield name, inspect.cleandoc(doc or "")


def _registered_name(decorator: ast.expr) -> str | None:
    if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Name) or decorator.func.id != "metric":
        return None
    first = decorator.args[0] if decorator.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
