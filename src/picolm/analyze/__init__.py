"""Metrics on components of checkpoints: a snapshot and a specification come in, tidy rows go out.

The package itself can be called: `picolm.analyze(run, "table5")` is what the README shows, and importing any module of
this package would replace a function of that name.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


class _CallablePackage(ModuleType):
    """`picolm.analyze` as a function."""

    def __call__(self, run: str | os.PathLike[str], analysis: str | os.PathLike[str]) -> pandas.DataFrame:
        """The tidy rows of an analysis file (or preset name) applied to a run; only missing rows are computed.

        `run`: a run folder, one of the original trainer, or what `picolm.open_run` gives.
        """
        from pathlib import Path

        from picolm.analyze.config import load_analysis
        from picolm.analyze.engine import run_analysis
        from picolm.analyze.source import open_source

        return run_analysis(open_source(Path(run)), load_analysis(os.fspath(analysis))).rows


sys.modules[__name__].__class__ = _CallablePackage
