"""Whole studies of made-up runs, judged end to end: every verdict, failures, tampering, and what must not matter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.study.synthetic import Runs, lock_of, losses_apart, study

from picolm.study.judge import judge
from picolm.study.judgement import read_judgement, write_judgement

PAIR = {"of": "treated", "versus": "plain", "measure": "final"}


def judged(tmp_path: Path, final, *, changes=None, status=None, tokens=None, locked=True, **options):
    config = study(**(changes or {}))
    runs = Runs(config, tmp_path, final, status=status or {}, tokens_per_step=tokens or {})
    return judge(config, runs.cells(), lock_of(config) if locked else None, **options)


@pytest.mark.parametrize(
    ("gap", "verdict", "label"),
    [(0.08, "supported", ""), (0.02, "inconclusive", ""), (0.01, "refuted", "negligible"), (-0.05, "refuted", "reversed")],
)
def test_the_verdict_follows_the_gap(tmp_path, gap, verdict, label):
    found = judged(tmp_path, losses_apart(gap))
    assert (found.verdict, found.predictions[0].sub_label) == (verdict, label)
    assert found.conclusion.startswith(verdict.capitalize())
    assert f"in the predicted direction the mean difference is {gap:.3g} (95% interval" in found.conclusion


def test_a_gap_that_is_neither_clear_nor_excluded_is_too_small_only_if_it_is_not_negligible(tmp_path):
    gaps = {11: 0.018, 12: -0.03, 13: 0.019, 14: -0.04, 15: 0.0195, 16: 0.0199}
    found = judged(tmp_path, lambda variant, seed: 3.0 - (gaps[seed] if variant == "treated" else 0.0) if seed < 900 else 3.0)
    assert found.verdict == "refuted" and found.predictions[0].sub_label == "too small"


def test_effects_are_paired_by_seed_and_turned_towards_the_prediction(tmp_path):
    found = judged(tmp_path, losses_apart(0.08, noise=0.0)).predictions[0]
    assert [effect.effect for effect in found.effects] == pytest.approx([0.08] * 6)
    assert [effect.seed for effect in found.effects] == [11, 12, 13, 14, 15, 16]
    assert found.tests.p_supported == found.tests.p_floor == 1 / 64 and found.look == 6


def test_a_verdict_that_one_seed_carries_is_called_fragile(tmp_path):
    gaps = {11: 0.4, 12: 0.3, 13: 0.2, 14: 0.3, 15: 0.25, 16: -0.1}
    found = judged(tmp_path, lambda variant, seed: 3.0 - (gaps.get(seed, 0) if variant == "treated" else 0.0))
    prediction = found.predictions[0]
    assert found.verdict == "supported" and prediction.fragile and prediction.sub_label == "fragile"
    assert "rests on single seeds" in found.conclusion
    assert max(one.p for one in prediction.leave_one_out) > 0.05


def test_seeds_needed_come_from_the_declared_effect_never_from_the_observed_one(tmp_path):
    noise = {11: 0.05, 12: -0.05, 13: 0.04, 14: -0.03, 15: 0.02, 16: -0.04}
    needed = []
    for number, gap in enumerate((0.02, 0.021)):
        found = judged(
            tmp_path / str(number), lambda variant, seed, gap=gap: 3 - (variant == "treated") * (gap + noise.get(seed, 0))
        )
        planning = found.predictions[0].planning
        needed.append(planning.seeds_needed)
        assert found.verdict == "inconclusive" and planning.expect == 0.05 and planning.fits_budget is False
        assert found.predictions[0].sub_label == "not resolvable in budget"
    assert needed[0] == needed[1] > 6


def test_three_seeds_can_only_be_inconclusive(tmp_path):
    found = judged(tmp_path, losses_apart(1.0), changes={"seeds": {"confirm": [11, 12, 13]}})
    assert found.verdict == "inconclusive" and "no outcome could reach" in found.predictions[0].reason


def test_a_study_that_was_not_locked_gets_no_verdict_and_no_p(tmp_path):
    found = judged(tmp_path, losses_apart(0.08), locked=False)
    assert found.verdict == found.predictions[0].verdict == "exploratory" and found.exit_code == 6
    assert found.predictions[0].tests.p_supported is None and found.predictions[0].intervals
    assert all(one.p is None for one in found.predictions[0].leave_one_out)
    assert "supported" not in found.conclusion


def test_tampering_makes_it_invalid_and_is_named(tmp_path):
    found = judged(tmp_path, losses_apart(0.08), tampering=["runs/treated-seed-11/logs/train.jsonl was changed"])
    assert found.verdict == found.predictions[0].verdict == "invalid" and found.exit_code == 5
    assert found.predictions[0].tests.p_supported is None
    assert "tampering" in found.conclusion
    assert "train.jsonl" in next(check for check in found.checks if check.kind == "tamper").details[0]


def test_variants_with_different_tokens_cannot_be_compared(tmp_path):
    found = judged(tmp_path, losses_apart(0.08), tokens={"treated": 110})
    assert found.verdict == "invalid"
    row = found.parity[0]
    assert row.equal is False and row.values == {"plain": "4,000", "treated": "4,400"}


def test_before_the_first_look_nothing_is_decided(tmp_path):
    found = judged(tmp_path, losses_apart(0.08), status={("treated", 16): "missing"})
    prediction = found.predictions[0]
    assert found.verdict == "inconclusive" and prediction.sub_label == "before the first look" and found.next_look == 6
    assert prediction.tests.p_supported is None and len(prediction.effects) == 5


def test_a_crashed_run_is_waited_for_or_missing_as_declared(tmp_path):
    crashed = {("treated", 16): "crashed"}
    waiting = judged(tmp_path / "a", losses_apart(0.08), status=crashed)
    assert waiting.verdict == "inconclusive" and waiting.failures[0].counted_as == "to be run again"
    lost = judged(tmp_path / "b", losses_apart(0.08), status=crashed, changes={"failures": {"crashed": "count_as_missing"}})
    assert lost.verdict == "invalid" and "1 seeds are missing" in lost.conclusion
    allowed = {"failures": {"crashed": "count_as_missing", "max_missing": 1}}
    with_five = judged(tmp_path / "c", losses_apart(0.08), status=crashed, changes=allowed)
    assert with_five.verdict == "supported" and with_five.predictions[0].tests.p_floor == 1 / 32


@pytest.mark.parametrize(("who", "verdict"), [("plain", "supported"), ("treated", "inconclusive")])
def test_a_diverged_run_counts_as_the_worst_of_all(tmp_path, who, verdict):
    found = judged(tmp_path, losses_apart(0.08), status={(who, 13): "diverged"})
    prediction = found.predictions[0]
    assert found.verdict == verdict and "signed ranks" in prediction.tests.method
    assert not [interval for interval in prediction.intervals if interval.method == "paired t"]
    assert "diverged" in next(effect.note for effect in prediction.effects if effect.seed == 13)
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_a_diverged_run_takes_its_seed_along_or_ends_the_study_as_declared(tmp_path):
    diverged = {("treated", 13): "diverged"}
    dropped = judged(tmp_path / "a", losses_apart(0.08), status=diverged, changes={"failures": {"diverged": "drop_seed"}})
    assert [effect.seed for effect in dropped.predictions[0].effects] == [11, 12, 14, 15, 16]
    ended = judged(tmp_path / "b", losses_apart(0.08), status=diverged, changes={"failures": {"diverged": "invalid"}})
    assert ended.verdict == "invalid"


def two_looks(**more):
    seeds = {"confirm": [11, 12, 13, 14, 15, 16], "reserve": [17, 18, 19, 20]}
    return {"seeds": seeds, "stopping": {"looks": [6, 10], "spend": [0.015625, 0.04]}} | more


def test_a_clear_first_look_ends_the_study(tmp_path):
    waiting = {(variant, seed): "missing" for variant in ("plain", "treated") for seed in (17, 18, 19, 20)}
    found = judged(tmp_path, losses_apart(0.08), changes=two_looks(), status=waiting)
    assert found.verdict == "supported" and found.next_look is None and not found.failures
    assert found.predictions[0].tests.threshold == 0.015625 and not found.predictions[0].fragile


def test_an_unclear_first_look_asks_for_the_second_which_then_decides(tmp_path):
    gaps = dict(zip(range(11, 21), [0.2, 0.3, 0.01, 0.2, 0.1, 0.2, 0.3, 0.2, 0.25, 0.2], strict=True))

    def final(variant, seed):
        return 3.0 - (gaps.get(seed, 0.0) if variant == "treated" else 0.0)

    waiting = {(variant, seed): "missing" for variant in ("plain", "treated") for seed in (17, 18, 19, 20)}
    first = judged(tmp_path / "a", final, changes=two_looks(), status=waiting)
    assert (
        first.verdict == "inconclusive" and first.next_look == 10 and "The next declared look is at 10 seeds" in first.conclusion
    )
    second = judged(tmp_path / "b", final, changes=two_looks())
    assert second.verdict == "supported" and second.predictions[0].look == 10 and second.predictions[0].tests.threshold == 0.04


def test_seeds_between_two_looks_are_not_looked_at(tmp_path):
    gaps = dict(zip(range(11, 21), [0.2, 0.3, 0.01, 0.2, 0.1, 0.2, 0.3, 0.2, 0.25, 0.2], strict=True))
    waiting = {(variant, 20): "missing" for variant in ("plain", "treated")}
    found = judged(
        tmp_path, lambda variant, seed: 3 - (variant == "treated") * gaps.get(seed, 0), changes=two_looks(), status=waiting
    )
    assert found.predictions[0].look == 6 and len(found.predictions[0].effects) == 6 and found.next_look == 10


def test_the_first_decisive_look_stays_decisive_whatever_comes_after(tmp_path):
    def final(variant, seed):
        return 3.0 - (variant == "treated") * (0.1 if seed <= 16 else -5.0)

    found = judged(tmp_path, final, changes=two_looks())
    assert found.verdict == "supported" and found.predictions[0].look == 6


def test_a_family_in_sequence_stops_where_one_does_not_hold(tmp_path):
    predictions = {
        "P1": {"kind": "difference", **PAIR, "direction": "lower", "at_least": 0.2, "primary": True},
        "P2": {"kind": "difference", **PAIR, "direction": "lower"},
        "extra": {"kind": "difference", **PAIR, "direction": "lower"},
    }
    found = judged(tmp_path, losses_apart(0.2), changes={"predictions": predictions, "family": {"order": ["P1", "P2"]}})
    by_name = {one.name: one for one in found.predictions}
    assert by_name["P2"].verdict == "inconclusive" and by_name["P2"].sub_label == "not reached"
    assert by_name["P2"].tests.p_supported is None
    assert by_name["extra"].verdict == "exploratory" and by_name["extra"].sub_label == "descriptive"
    assert by_name["extra"].tests.p_supported is None and by_name["extra"].intervals


def test_holm_spends_alpha_over_the_family(tmp_path):
    predictions = {f"P{at}": {"kind": "difference", **PAIR, "direction": "lower", "primary": True} for at in range(4)}
    found = judged(tmp_path, losses_apart(0.08), changes={"predictions": predictions, "family": {"method": "holm"}})
    assert found.verdict == "inconclusive" and found.predictions[0].tests.p_supported_adjusted == 4 / 64
    three = {name: predictions[name] for name in ("P0", "P1", "P2")}
    found = judged(tmp_path, losses_apart(0.08), changes={"predictions": three, "family": {"method": "holm"}})
    assert found.verdict == "supported" and found.predictions[0].tests.p_supported_adjusted == 3 / 64


def test_the_order_in_which_seeds_are_declared_does_not_matter(tmp_path):
    orders = ([11, 12, 13, 14, 15, 16], [16, 14, 12, 15, 13, 11])
    first, second = (
        judged(tmp_path / str(at), losses_apart(0.03, 0.02), changes={"seeds": {"confirm": order}}).predictions[0]
        for at, order in enumerate(orders)
    )
    assert first.tests == second.tests and first.mean == pytest.approx(second.mean) and first.verdict == second.verdict


def test_swapping_the_variants_and_the_direction_changes_nothing(tmp_path):
    mirrored = {
        "kind": "difference",
        "of": "plain",
        "versus": "treated",
        "measure": "final",
        "direction": "higher",
        "at_least": 0.02,
    }
    final = losses_apart(0.03, 0.01)
    one = judged(tmp_path / "a", final).predictions[0]
    other = judged(tmp_path / "b", final, changes={"predictions": {"P1": mirrored}}).predictions[0]
    assert one.tests == other.tests and [e.effect for e in one.effects] == pytest.approx([e.effect for e in other.effects])


def test_the_unit_of_the_measure_does_not_matter(tmp_path):
    final = losses_apart(0.03, 0.01)
    scaled = {"P1": {"kind": "difference", **PAIR, "direction": "lower", "at_least": 20.0, "expect": 50.0}}
    one = judged(tmp_path / "a", final).predictions[0]
    other = judged(tmp_path / "b", lambda v, s: 1000 * final(v, s), changes={"predictions": scaled}).predictions[0]
    assert one.tests == other.tests and one.effect_size == pytest.approx(other.effect_size)
    assert one.planning.seeds_needed == other.planning.seeds_needed


def test_a_judgement_is_read_back_as_it_was_written(tmp_path):
    found = judged(tmp_path, losses_apart(0.08))
    write_judgement(tmp_path / "judgement.json", found)
    assert read_judgement(tmp_path / "judgement.json") == found


def test_judging_loads_no_torch():
    import subprocess
    import sys

    code = "import sys, picolm.study.judge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_deviations_are_part_of_the_first_paragraph(tmp_path):
    found = judged(tmp_path, losses_apart(0.08), deviations=["made with other code than at the lock", "two runs too many"])
    assert found.verdict == "supported" and len(found.deviations) == 2
    assert "Not as declared: made with other code than at the lock; and 1 more, listed below." in found.conclusion


def test_while_a_control_is_to_come_no_p_is_shown_and_the_same_look_is_next(tmp_path):
    control = {"kind": "positive_control", "set": {"training.optimization.lr": "x0.05"}, "measure": "final"}
    found = judged(tmp_path, losses_apart(0.08), changes={"checks": [control]})
    prediction = found.predictions[0]
    assert found.verdict == "inconclusive" and prediction.sub_label == "checks outstanding" and found.next_look == 6
    assert prediction.tests.p_supported is None and "control" in prediction.reason
