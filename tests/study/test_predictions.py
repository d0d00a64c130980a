"""Every kind of prediction on made-up runs: what is supported, what is refuted, and what cannot be told."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from tests.study.synthetic import Runs, lock_of, losses_apart, study

from picolm.base.errors import PicoError
from picolm.records.items import ItemValues, write_items
from picolm.study import spec_predictions
from picolm.study.judge import judge
from picolm.study.predictions.contract import KINDS, kind_of

PAIR = {"of": "treated", "versus": "plain"}
SEEDS = (11, 12, 13, 14, 15, 16)


def noise_of(variant: str, seed: int, points: int = 1) -> np.ndarray:
    return np.random.default_rng([seed, len(variant)]).standard_normal(points)


def prediction(tmp_path, declared, final=losses_apart(0.08), *, status=None, changes=None, after=lambda cells: None, **runs):
    config = study(predictions={"P": declared}, **(changes or {}))
    cells = Runs(config, tmp_path, final, status=status or {}, **runs).cells()
    after(cells)
    return judge(config, cells, lock_of(config)).predictions[0]


def test_every_kind_that_can_be_declared_can_be_judged():
    declared = {
        config
        for config in vars(spec_predictions).values()
        if inspect.isclass(config) and issubclass(config, spec_predictions.Prediction) and "kind" in config.model_fields
    }
    kind_of(study().predictions["P1"])
    assert set(KINDS) == declared and len(declared) >= 11


@pytest.mark.parametrize(("direction", "verdict"), [("lower", "supported"), ("higher", "refuted"), ("either", "supported")])
def test_a_ratio_is_judged_on_logarithms(tmp_path, direction, verdict):
    declared = {"kind": "ratio", **PAIR, "measure": "final", "direction": direction, "at_least": 1.2}
    found = prediction(tmp_path, declared, lambda v, s: (3.0 + s / 100) / (1.5 if v == "treated" else 1.0))
    assert found.verdict == verdict and found.scale == "log ratio"
    assert abs(found.mean) == pytest.approx(math.log(1.5)) and found.at_least == pytest.approx(math.log(1.2))


def test_a_ratio_of_a_number_below_zero_is_an_error(tmp_path):
    declared = {"kind": "ratio", **PAIR, "measure": "final", "direction": "lower"}
    with pytest.raises(PicoError, match="no logarithm"):
        prediction(tmp_path, declared, lambda v, s: -1.0)


@pytest.mark.parametrize(("gap", "verdict"), [(0.1, "supported"), (-0.1, "supported"), (0.001, "refuted")])
def test_a_difference_of_either_sign_is_two_sided(tmp_path, gap, verdict):
    declared = {"kind": "difference", **PAIR, "measure": "final", "direction": "either", "at_least": 0.05}
    found = prediction(tmp_path, declared, losses_apart(gap))
    assert found.verdict == verdict and found.tests.p_floor == 2 / 64
    assert found.tests.p_supported == (2 / 64 if verdict == "supported" else 1.0)


@pytest.mark.parametrize(
    ("gap", "verdict", "label"), [(0.01, "supported", ""), (0.3, "refuted", "outside the margin"), (0.1, "inconclusive", "")]
)
def test_equivalence_holds_inside_the_margin_and_fails_outside(tmp_path, gap, verdict, label):
    declared = {"kind": "equivalence", **PAIR, "measure": "final", "margin": 0.1}
    found = prediction(tmp_path, declared, losses_apart(gap, 0.02))
    assert found.verdict == verdict and found.sub_label == label and found.margin == 0.1
    assert any(fact.name == "p of two one-sided t tests" for fact in found.facts)


def test_an_equivalence_margin_may_be_a_share(tmp_path):
    declared = {"kind": "equivalence", **PAIR, "measure": "final", "margin": 0.04, "scale": "ratio"}
    assert prediction(tmp_path / "a", declared, lambda v, s: s * (1.03 if v == "treated" else 1.0)).verdict == "supported"
    assert prediction(tmp_path / "b", declared, lambda v, s: s * (1.05 if v == "treated" else 1.0)).verdict == "refuted"


@pytest.mark.parametrize(("gap", "verdict"), [(0.5, "supported"), (-0.05, "supported"), (-0.3, "refuted")])
def test_not_worse_means_by_the_better_end_of_the_measure(tmp_path, gap, verdict):
    declared = {"kind": "non_inferiority", **PAIR, "measure": "final", "margin": 0.1}
    assert prediction(tmp_path, declared, losses_apart(gap)).verdict == verdict


SIZES = {
    "variants": {
        "plain": {"role": "baseline"},
        "middle": {"role": "treatment"},
        "treated": {"role": "treatment"},
    }
}


def by_variant(values, noise=0.01):
    return lambda variant, seed: values[variant] + 0.3 * (seed % 5) + noise * noise_of(variant, seed)[0]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((3.0, 2.8, 2.6), "supported"), ((3.0, 3.2, 2.6), "refuted"), ((3.0, 2.8, 2.799), "inconclusive")],
)
def test_an_order_holds_only_if_every_step_does(tmp_path, values, verdict):
    declared = {"kind": "order", "variants": ["plain", "middle", "treated"], "measure": "final", "direction": "decreasing"}
    final = by_variant(dict(zip(("plain", "middle", "treated"), values, strict=True)), noise=0.02)
    found = prediction(tmp_path, declared, final, changes=SIZES)
    assert found.verdict == verdict and found.facts[0].name == "Page's L"


@pytest.mark.parametrize(
    ("slope", "direction", "verdict"),
    [(0.2, "increasing", "supported"), (0.2, "decreasing", "refuted"), (0.0, "increasing", None)],
)
def test_a_trend_is_one_slope_per_seed(tmp_path, slope, direction, verdict):
    doses = {"plain": 1.0, "middle": 2.0, "treated": 4.0}
    declared = {"kind": "trend", "over": doses, "x": "log", "measure": "final", "direction": direction, "at_least": 0.05}
    final = by_variant({name: slope * math.log(dose) for name, dose in doses.items()}, noise=0.001)
    found = prediction(tmp_path, declared, final, changes=SIZES)
    assert verdict is None or found.verdict == verdict
    assert found.mean == pytest.approx(slope if direction == "increasing" else -slope, abs=0.005) and found.scale == "slope"


def test_a_gap_that_grows_with_size_is_a_trend_of_differences(tmp_path):
    names = {f"{kind}_{size}": {"role": "treatment"} for kind in ("full", "low") for size in (1, 2, 4)}
    names["full_1"] = {"role": "baseline"}
    declared = {
        "kind": "trend",
        "over": {f"low_{size}": float(size) for size in (1, 2, 4)},
        "minus": {f"low_{size}": f"full_{size}" for size in (1, 2, 4)},
        "measure": "final",
        "direction": "increasing",
    }

    def final(variant, seed):
        kind, size = variant.split("_")
        return 3 - 0.5 * int(size) + (0.1 * int(size) if kind == "low" else 0.0) + 0.2 * (seed % 3)

    found = prediction(tmp_path, declared, final, changes={"variants": names})
    assert found.verdict == "supported" and found.mean == pytest.approx(0.1)


LEVEL = {"measures": {"final": {"series": "train.loss", "reduce": "tokens_to", "level": 2.0}}}


def falling(speed):
    """Losses 4, 4 - speed, ...: the level 2 is reached after 2 / speed rows."""
    return lambda variant, seed: [4.0 - at * speed(variant, seed) for at in range(12)]


@pytest.mark.parametrize(("direction", "verdict"), [("lower", "supported"), ("higher", "refuted")])
def test_fewer_tokens_to_a_level_are_sooner(tmp_path, direction, verdict):
    declared = {"kind": "tokens_to_level", **PAIR, "measure": "final", "direction": direction, "at_least": 1.2}
    curve = falling(lambda v, s: (0.5 if v == "treated" else 0.25) + 0.001 * (s % 4))
    found = prediction(tmp_path, declared, curve=curve, changes=LEVEL)
    assert found.verdict == verdict
    assert found.effects[0].of < found.effects[0].versus
    assert found.mean > 0.5 if direction == "lower" else found.mean < -0.5


def test_runs_that_never_get_there_are_ranked_last(tmp_path):
    declared = {"kind": "tokens_to_level", **PAIR, "measure": "final"}
    curve = falling(lambda v, s: 0.5 if v == "treated" else (0.01 if s % 2 else 0.25))
    found = prediction(tmp_path, declared, curve=curve, changes=LEVEL)
    assert found.verdict == "supported" and "ranks" in found.tests.method
    assert "never got there" in found.effects[0].note and not found.intervals
    means = {fact.name: fact.value for fact in found.facts}
    assert means["restricted mean, treated"] == 5000 and means["restricted mean, plain"] == pytest.approx((12000 + 9000) / 2)
    assert means["runs that never got there"] == 3


def test_a_diverged_run_never_gets_there(tmp_path):
    declared = {"kind": "tokens_to_level", **PAIR, "measure": "final"}
    curve = falling(lambda v, s: 0.5 if v == "treated" else 0.25)
    found = prediction(tmp_path, declared, curve=curve, changes=LEVEL, status={("treated", 13): "diverged"})
    assert found.verdict == "inconclusive" and next(e.effect for e in found.effects if e.seed == 13) < 0


CURVES = {
    "measures": {
        "final": {"series": "train.loss", "reduce": "curve", "x": "step"},
        "per": {"series": "train.per", "reduce": "curve", "x": "step"},
    }
}


def with_spikes(follow):
    """A loss that jumps at three places of each seed, and a rank that dips two rows later if `follow`."""

    def columns(variant, seed):
        per = 0.5 + 0.01 * noise_of(variant, seed, 120)
        for at in places(seed):
            per[at + 2 : at + 4] -= 0.2 if follow else 0.0
        return {"per": per.tolist()}

    def curve(variant, seed):
        loss = 3.0 + 0.01 * noise_of(variant + "!", seed, 120)
        loss[list(places(seed))] += 1.0
        return loss.tolist()

    def places(seed):
        return (30 + seed % 3, 62 + seed % 5, 99)

    return {"curve": curve, "columns": columns}


@pytest.mark.parametrize(("follow", "supported"), [(True, True), (False, False)])
def test_dips_that_follow_spikes_are_told_from_chance(tmp_path, follow, supported):
    declared = {"kind": "event_alignment", "of": "treated", "events": "final", "response": "per", "lag": [10, 40]}
    found = prediction(tmp_path, declared, changes=CURVES, **with_spikes(follow))
    assert (found.verdict == "supported") is supported
    if supported:
        assert found.mean == pytest.approx(0.1, abs=0.03) and found.tests.p_supported < 1e-4


def test_dips_where_spikes_were_predicted_refute_it(tmp_path):
    declared = {
        "kind": "event_alignment",
        "of": "treated",
        "events": "final",
        "response": "per",
        "lag": [20, 30],
        "response_is": "spikes",
    }
    found = prediction(tmp_path, declared, changes=CURVES, **with_spikes(True))
    assert found.verdict == "refuted" and found.sub_label == "reversed"


def peaked(height):
    at = np.linspace(0, np.pi, 30)
    return lambda variant, seed: (
        3 + (height if variant == "treated" else 0.0) * np.sin(at) + 0.01 * noise_of(variant, seed, 30)
    ).tolist()


@pytest.mark.parametrize(("height", "verdict"), [(1.0, "supported"), (0.0, "refuted")])
def test_a_rise_and_fall_is_compared_with_the_other_variant(tmp_path, height, verdict):
    declared = {"kind": "shape", **PAIR, "measure": "final", "shape": "rise_then_fall", "at_least": 0.3}
    found = prediction(tmp_path, declared, changes=CURVES, curve=peaked(height), columns=lambda v, s: {"per": [0.0] * 30})
    assert found.verdict == verdict
    assert found.mean == pytest.approx(height * (1 - math.sin(math.pi / 29)), abs=0.05), "the ends are medians of three points"


def test_a_trough_is_a_peak_upside_down(tmp_path):
    declared = {"kind": "shape", **PAIR, "measure": "final", "shape": "fall_then_rise", "at_least": 0.3}
    found = prediction(tmp_path, declared, changes=CURVES, curve=peaked(-1.0), columns=lambda v, s: {"per": [0.0] * 30})
    assert found.verdict == "supported"


def test_phases_are_counted_in_every_run(tmp_path):
    declared = {"kind": "shape", **PAIR, "measure": "final", "shape": "phases", "phases": 2}
    at = np.arange(40.0)

    def curve(variant, seed):
        bend = 0.4 * np.maximum(at - 20, 0) if variant == "treated" else 0.0
        return (10 - 0.1 * at - bend + 0.02 * noise_of(variant, seed, 40)).tolist()

    found = prediction(tmp_path, declared, changes=CURVES, curve=curve, columns=lambda v, s: {"per": [0.0] * 40})
    assert found.verdict == "supported" and found.scale == "share" and found.mean > 0.8


def test_curves_are_compared_at_all_points_together(tmp_path):
    declared = {"kind": "whole_curve", **PAIR, "measure": "final", "direction": "lower", "at_least": 0.1}

    def curve(variant, seed):
        apart = np.where(np.arange(20) >= 8, 0.5, 0.0) if variant == "treated" else 0.0
        return (4 - apart + 0.02 * noise_of(variant, seed, 20)).tolist()

    found = prediction(tmp_path, declared, changes=CURVES, curve=curve, columns=lambda v, s: {"per": [0.0] * 20})
    assert found.verdict == "supported" and found.curve.first_separation == 90.0
    assert len(found.curve.x) == len(found.curve.low) == 20 and found.curve.low[10] > 0.1 > found.curve.low[3]


def test_curves_that_never_part_refute_it(tmp_path):
    declared = {"kind": "whole_curve", **PAIR, "measure": "final", "direction": "lower", "at_least": 0.1}
    flat = {"curve": lambda v, s: (4 + 0.02 * noise_of(v, s, 20)).tolist(), "columns": lambda v, s: {"per": [0.0] * 20}}
    found = prediction(tmp_path, declared, changes=CURVES, **flat)
    assert found.verdict == "refuted" and found.sub_label == "nowhere beyond the threshold"


@pytest.mark.parametrize("kind", ["whole_curve", "shape", "event_alignment"])
def test_half_a_curve_cannot_be_tested_and_says_so(tmp_path, kind):
    declared = {
        "whole_curve": {"kind": kind, **PAIR, "measure": "final", "direction": "lower"},
        "shape": {"kind": kind, **PAIR, "measure": "final", "shape": "rise_then_fall"},
        "event_alignment": {"kind": kind, "of": "treated", "events": "final", "response": "per"},
    }[kind]
    found = prediction(
        tmp_path, declared, changes=CURVES, status={("treated", 13): "diverged"}, columns=lambda v, s: {"per": [0.0] * 4}
    )
    assert found.verdict == "inconclusive" and found.sub_label == "not testable" and "diverged" in found.reason


@pytest.mark.parametrize(("value", "verdict", "label"), [(1e-6, "supported", ""), (0.2, "refuted", "violated")])
def test_an_invariant_needs_no_chance_and_one_run(tmp_path, value, verdict, label):
    declared = {"kind": "invariant", "of": "treated", "measure": "final", "tolerance": 1e-5}
    one_seed = {"seeds": {"confirm": [11]}}
    found = prediction(tmp_path, declared, lambda v, s: value, changes=one_seed)
    assert (found.verdict, found.sub_label) == (verdict, label) and found.tests.p_supported is None


def test_an_invariant_may_be_about_a_difference(tmp_path):
    declared = {"kind": "invariant", "of": "treated", "versus": "plain", "measure": "final"}
    assert prediction(tmp_path / "a", declared, lambda v, s: s / 7).verdict == "supported"
    assert prediction(tmp_path / "b", declared, lambda v, s: s / 7 + (v == "treated") * (s == 14) * 1e-9).verdict == "refuted"


def keeps_items(gap, spread, clusters=lambda cell: None):
    """Runs keep 200 items; `gap`: by which the treated are lower on average, `spread`: how much that differs by item."""
    difficulty = np.random.default_rng(5).standard_normal(200)

    def after(cells):
        for cell in cells:
            lower = gap + spread * difficulty if cell.variant == "treated" else 0.0
            write_items(
                cell.run,
                40,
                "perplexity",
                ItemValues(
                    "loss_per_token",
                    (3 + 0.01 * cell.seed - lower).tolist() if cell.variant == "treated" else [3 + 0.01 * cell.seed] * 200,
                    clusters(cell),
                ),
            )

    return after


ITEMS = {"kind": "difference", **PAIR, "measure": "final", "direction": "lower", "items": True}


def test_items_that_disagree_keep_a_difference_from_being_supported(tmp_path):
    agree = prediction(tmp_path / "a", ITEMS, after=keeps_items(0.08, 0.1))
    assert agree.verdict == "supported" and agree.intervals[-1].method == "two-level bootstrap over seeds and items"
    disagree = prediction(tmp_path / "b", ITEMS, after=keeps_items(0.08, 2.0))
    assert disagree.verdict == "inconclusive" and disagree.tests.p_supported > 0.05


def test_items_in_clusters_are_drawn_by_the_cluster(tmp_path):
    tens = [f"paradigm {number // 10}" for number in range(200)]
    found = prediction(tmp_path, ITEMS, after=keeps_items(0.08, 0.1, lambda cell: tens))
    assert found.facts[-1].value == 20 and "clusters of items together" in found.facts[-1].note


def test_items_in_other_clusters_in_some_runs_are_not_drawn_again(tmp_path):
    clusters = {"plain": None, "treated": ["one", "two"] * 100}
    found = prediction(tmp_path, ITEMS, after=keeps_items(0.08, 0.1, lambda cell: clusters[cell.variant]))
    assert "in different clusters" in found.facts[-1].note


def test_without_kept_items_a_fact_says_so(tmp_path):
    found = prediction(tmp_path, ITEMS)
    assert found.verdict == "supported" and "did not keep the items" in found.facts[-1].note
