"""The studies that come along: every variant is one that `pico train` would take, and their own methods do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from picolm.base.config import read_yaml
from picolm.records.studydir import open_study_directory
from picolm.study.config import load_study
from picolm.study.resolve import Opened, configuration, places
from picolm.train.plan import plan_run

TOP = Path(__file__).parents[2]
SHIPPED = sorted((TOP / "studies").glob("*/study.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_every_variant_of_a_shipped_study_can_be_trained(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)
    study, directory = load_study(file), open_study_directory(file)
    base = read_yaml(directory.beside_definition(study.base))
    steps = set()
    for place in {(place.variant, str(place.value), place.control is None): place for place in places(study)}.values():
        _, config = configuration(study, base, place, str(file), Opened())
        planned = plan_run(config)
        steps.add(config.training.max_steps)
        assert sum(planned.parameters.values()) > 0
    assert len(steps) == 1
    for reference in study.analyses.values():
        assert directory.beside_definition(reference).is_file()


def method_of(study: str) -> object:
    path = TOP / "studies" / study / "method.py"
    spec = importlib.util.spec_from_file_location(study.replace("-", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_effective_rank_of_equal_directions_is_their_number() -> None:
    module = method_of("adaptive-rank")
    basis = torch.linalg.qr(torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    assert module.effective_rank(basis @ torch.eye(5, 9, dtype=torch.float64)) == pytest.approx(5)  # type: ignore[attr-defined]
    assert module.effective_rank(torch.zeros(3, 4)) == 1.0  # type: ignore[attr-defined]
