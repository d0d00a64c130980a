"""The arms of the example differ in the method alone, and its phases are where a curve bends."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy
import pytest

from picolm.analyze.config import load_analysis
from picolm.base.config import identity_values
from picolm.train.config import load_config

FOLDER = Path(__file__).parents[2] / "examples" / "maml_figure_2"
ARMS = ("plain", "published", "specified")


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"maml_figure_2_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_arms_differ_in_the_method_alone():
    values = [identity_values(load_config(FOLDER / f"{arm}.yaml")) for arm in ARMS]
    differing = {key for key in values[0] if any(other[key] != values[0][key] for other in values[1:])}
    assert differing == {"training.method"}
    assert load_analysis(str(FOLDER / "dynamics.yaml")).analysis_name == "dynamics"


def test_phases_begin_where_a_curve_bends():
    steps = numpy.arange(0, 400, 5)
    bent = numpy.interp(steps, [0, 100, 250, 395], [0.9, 0.4, 0.7, 0.65])
    noisy = bent + numpy.random.default_rng(0).normal(0, 0.01, len(steps))
    for curve, within in ((bent, 5), (noisy, 20)):
        assert loaded("phases").turning_points(steps, curve) == pytest.approx([100, 250], abs=within)


def test_a_short_curve_has_no_phases():
    assert loaded("phases").turning_points(numpy.arange(8), numpy.arange(8.0)) == []
