"""What a report shows, as a file: panels with their options, how runs are grouped, title and style."""

from __future__ import annotations

from pathlib import Path

from picolm.base.config import Settings, parse_settings, read_yaml
from picolm.base.registry import Named


class ReportConfig(Settings):
    """The settings of `pico report --config`."""

    panels: tuple[Named, ...] | None = None
    """Panels, top to bottom: names, or `./mine.py:my_panel`, with their options. Null: the usual ones."""

    group_by: str | None = None
    """What names a series when there are several runs: `run`, `variant`, `seed`, or a setting such as `model.d_model`. Null: what
    tells the runs apart."""

    title: str | None = None
    """Title of the page. Null: the name of the run."""

    style: str = "paper"
    """Size and type of exported figures: `paper` or `slides`."""


def load_report_config(path: Path | None) -> ReportConfig:
    """The settings in a YAML file; without one, the usual ones."""
    return ReportConfig() if path is None else parse_settings(ReportConfig, read_yaml(path), str(path))
