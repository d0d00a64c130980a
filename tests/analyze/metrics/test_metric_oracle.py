"""Every value of the metric oracle is met, and what it calls undefined is undefined with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from picolm.analyze.metrics.contract import metric_function
from picolm.base.errors import Undefined

pytestmark = pytest.mark.data

OF_ONE_MATRIX = {
    "gini": ("gini", {}),
    "hoyer": ("hoyer", {}),
    "effective_rank": ("effective_rank", {}),
    "per": ("per", {}),
    "condition_number": ("condition_number", {}),
    "condition_number_above_tolerance": ("condition_number_above_tolerance", {}),
    "frobenius": ("norm", {"norm_type": "frobenius"}),
    "nuclear": ("norm", {"norm_type": "nuclear"}),
    "spectral": ("norm", {"norm_type": "spectral"}),
    "matrix_inf": ("norm", {"norm_type": "inf"}),
    "matrix_1": ("norm", {"norm_type": "one"}),
    "max_abs": ("norm", {"norm_type": "max"}),
}
OF_TWO = {
    "cka": ("cka", {}),
    "cka_debiased": ("cka", {"debiased": True}),
    "mean_cca": ("cca", {}),
    "pwcca": ("pwcca", {}),
    "pwcca_x": ("pwcca", {"direction": "x"}),
    "pwcca_y": ("pwcca", {"direction": "y"}),
}


@pytest.fixture(scope="module")
def expected(test_data: Path) -> dict[str, Any]:
    return json.loads((test_data / "oracles" / "metrics" / "expected.json").read_text())


@pytest.fixture(scope="module")
def tensors(test_data: Path) -> dict[str, Tensor]:
    return load_file(test_data / "oracles" / "metrics" / "tensors.safetensors")


@pytest.mark.parametrize("value", OF_ONE_MATRIX)
def test_metrics_of_one_matrix_meet_the_oracle(value: str, expected: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    name, options = OF_ONE_MATRIX[value]
    for matrix_name, matrix in expected["matrices"].items():
        if value not in matrix["values"]:
            continue
        before = tensors[f"matrix.{matrix_name}"].clone()
        check(metric_function(name), [tensors[f"matrix.{matrix_name}"]], options, matrix["values"], value, matrix)
        assert tensors[f"matrix.{matrix_name}"].equal(before)


@pytest.mark.parametrize("value", OF_TWO)
def test_similarities_meet_the_oracle(value: str, expected: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    name, options = OF_TWO[value]
    for pair_name, pair in expected["pairs"].items():
        sides = [tensors[f"pair.{pair_name}.x"], tensors[f"pair.{pair_name}.y"]]
        check(metric_function(name), sides, options, pair["values"], value, None)


def check(function: Any, inputs: list[Tensor], options: Any, values: Any, value: str, matrix: Any) -> None:
    truth = values[value]
    if truth is None or truth == "inf":
        with pytest.raises(Undefined) as caught:
            function(*inputs, **options)
        if truth == "inf":
            assert str(caught.value) == f"singular: numerical rank {matrix['numerical_rank']} of {min(matrix['shape'])}"
        return
    tolerance = 1e-9
    if value.startswith("condition_number"):
        tolerance = max(tolerance, 1e-15 * truth * max(matrix["shape"]))
    assert function(*inputs, **options) == pytest.approx(truth, rel=tolerance, abs=0)


def test_reasons_of_the_undefined_ones(tensors: dict[str, Tensor]) -> None:
    zero, one = tensors["matrix.all_zero_f32"], tensors["matrix.one_element_f32"]
    for name in ("gini", "hoyer"):
        with pytest.raises(Undefined, match="all entries are zero"):
            metric_function(name)(zero)
    for name in ("per", "effective_rank", "condition_number", "condition_number_above_tolerance"):
        with pytest.raises(Undefined, match="all singular values are zero"):
            metric_function(name)(zero)
    with pytest.raises(Undefined, match="single entry"):
        metric_function("hoyer")(one)
    for name in ("cka", "cca", "pwcca"):
        with pytest.raises(Undefined, match="no variance"):
            metric_function(name)(tensors["pair.second_constant_rows.x"], tensors["pair.second_constant_rows.y"])
