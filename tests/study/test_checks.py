"""Gates of a study, on made-up runs."""

from __future__ import annotations

import pytest
from tests.study.synthetic import Runs, lock_of, losses_apart, study

from picolm.base.errors import PicoError
from picolm.study.judge import judge

SEEDS = {"tuning": [901, 902, 903], "confirm": [11, 12, 13, 14, 15, 16]}


def gate(tmp_path, check, *, cells=None, status=None, **settings):
    """The result of one check, and the study's verdict."""
    config = study(checks=[check], seeds=SEEDS)
    runs = Runs(config, tmp_path, settings.pop("final", losses_apart(0.08)), status=status or {}, **settings)
    places = runs.cells() + [runs.cell(*more[0], **more[1]) for more in cells or []]
    found = judge(config, places, lock_of(config))
    return found.checks[-1], found.verdict


def norms(treated):
    return lambda variant, seed: {"norm": treated if variant == "treated" else [0.0] * 4}


NORM = {"kind": "manipulation", "series": "train.norm", "variants": ["treated"], "op": ">", "value": 0}


@pytest.mark.parametrize(
    ("at", "norm", "passed"),
    [
        ("last", [0, 0, 0, 2], True),
        ("first", [0, 0, 0, 2], False),
        ("any", [0, 0, 2, 0], True),
        ("every", [1, 1, 0, 1], False),
        ("mean", [-1, 0, 0, 2], True),
        (20, [0, 1, 0, 0], True),
        (25, [1, 1, 1, 1], False),
    ],
)
def test_a_manipulation_must_show_in_every_run(tmp_path, at, norm, passed):
    found, verdict = gate(tmp_path, NORM | {"at": at}, columns=norms([float(value) for value in norm]))
    assert found.passed is passed
    assert verdict == ("supported" if passed else "invalid")
    assert len(found.details) == (0 if passed else 6)


def test_an_invariant_bounds_every_value_of_every_run(tmp_path):
    check = {"kind": "invariant", "series": "train.norm", "max": 1e-5, "variants": ["treated"]}
    assert gate(tmp_path / "a", check, columns=norms([0.0, 1e-6, 0.0, 0.0]))[0].passed
    found, verdict = gate(tmp_path / "b", check, columns=norms([0.0, 0.5, 0.0, 0.0]))
    assert found.passed is False and verdict == "invalid" and found.value == 0.5
    assert "1 of 4 values, the furthest 0.5" in found.details[0]


def test_the_noise_floor_is_the_spread_over_tuning_seeds(tmp_path):
    values = {901: 3.0, 902: 3.1, 903: 3.2}
    check = {"kind": "noise_floor", "variant": "plain", "measure": "final"}
    found, verdict = gate(tmp_path / "a", check, final=lambda v, s: values.get(s, 3.0 - 0.08 * (v == "treated")))
    assert found.value == pytest.approx(0.1) and found.passed is None and verdict == "supported"
    assert "tuning seeds" in found.sentence
    found, verdict = gate(tmp_path / "b", check | {"max": 0.05}, final=lambda v, s: values.get(s, 3.0 - 0.08 * (v == "treated")))
    assert found.passed is False and verdict == "invalid"


CONTROL = {"kind": "positive_control", "name": "slow", "set": {"training.optimization.lr": "x0.05"}, "measure": "final"}


@pytest.mark.parametrize(("worse_by", "passed"), [(0.5, True), (0.05, False), (-0.5, False)])
def test_a_known_change_must_show_in_every_seed_and_by_enough(tmp_path, worse_by, passed):
    def final(variant, seed):
        return 3.0 + (worse_by if variant == "slow" else 0.0) - 0.08 * (variant == "treated")

    controls = [(("plain", seed, "control"), {"control": "slow"}) for seed in (901, 902)]
    found, verdict = gate(tmp_path, CONTROL | {"by": 0.1}, cells=controls, final=final)
    assert found.passed is passed and found.value == pytest.approx(worse_by)
    assert verdict == ("supported" if passed else "invalid")


def test_a_control_that_diverges_is_worse_enough(tmp_path):
    controls = [(("plain", seed, "control"), {"control": "slow"}) for seed in (901, 902)]
    found, verdict = gate(tmp_path, CONTROL, cells=controls, status={("slow", 901): "diverged", ("slow", 902): "diverged"})
    assert found.passed and "diverged" in found.sentence and verdict == "supported"


def test_a_control_that_has_not_run_yet_neither_passes_nor_fails(tmp_path):
    found, verdict = gate(tmp_path, CONTROL)
    assert found.passed is None and found.pending and found.sentence == "no run to look at yet"
    assert verdict == "inconclusive", "without its control the study might be blind"


@pytest.mark.parametrize(("bound", "passed"), [(1.0, True), (2.9, False), ("entropy_floor", True)])
def test_headroom_is_the_distance_of_the_best_variant(tmp_path, bound, passed):
    check = {"kind": "headroom", "measure": "final", "bound": bound, "min_gap": 0.1}
    found, verdict = gate(tmp_path, check, final=lambda v, s: 3.0 - 0.08 * (v == "treated"))
    assert found.passed is passed and verdict == ("supported" if passed else "invalid")
    assert found.value == pytest.approx(2.92 - (2.5 if bound == "entropy_floor" else bound)) and found.variants == ("treated",)


def test_a_check_of_a_series_that_was_never_logged_is_an_error(tmp_path):
    with pytest.raises(PicoError, match=r"train\.norm"):
        gate(tmp_path, NORM)


def test_parity_of_the_evaluation_ignores_how_long_it_took_but_not_on_what(tmp_path):
    config = study(budget={"parity": ["tokens", "data", "tokenizer", "evaluation"]})
    runs = Runs(config, tmp_path, losses_apart(0.08))
    cells = runs.cells()
    assert judge(config, cells, lock_of(config)).verdict == "supported"
    target = next(cell.run for cell in cells if cell.variant == "treated" and cell.seed == 13)
    path = target.evaluation_file(40)
    path.write_text(path.read_text().replace('"cc"', '"dd"'))
    found = judge(config, cells, lock_of(config))
    assert found.verdict == "invalid"
    assert [row.quantity for row in found.parity if row.equal is False] == ["evaluation"]
