"""From p values at looks to verdicts, without any run."""

from __future__ import annotations

import pytest

from picolm.study.verdict import EXIT_CODES, Claim, Refutation, could_still_decide, decide, hypothesis_verdict, is_fragile

YES, NO, UNCLEAR = Claim(1 / 64, 1.0), Claim(1.0, 1 / 64), Claim(0.3, 0.7)


def verdicts(looks, thresholds, method="fixed_sequence", order=("P1", "P2", "P3")):
    named = [dict(zip(order, claims, strict=True)) for claims in looks]
    return {name: decision.verdict for name, decision in decide(named, thresholds, order, method).items()}


def test_each_prediction_of_a_sequence_is_tested_at_full_alpha_while_those_before_it_hold():
    assert verdicts([(YES, NO, YES)], [0.05]) == {"P1": "supported", "P2": "refuted", "P3": None}
    assert verdicts([(UNCLEAR, YES, YES)], [0.05]) == {"P1": None, "P2": None, "P3": None}
    assert verdicts([(YES, YES, YES)], [0.05]) == dict.fromkeys(("P1", "P2", "P3"), "supported")


def test_a_prediction_behind_one_that_does_not_hold_says_that_it_was_not_reached():
    found = decide([{"P1": UNCLEAR, "P2": YES}], [0.05], ["P1", "P2"], "fixed_sequence")
    assert not found["P2"].reached and found["P2"].supported_adjusted is None


def test_holm_asks_the_smallest_p_for_a_third_of_alpha():
    third = Claim(0.03, 1.0)
    assert verdicts([(YES, third, UNCLEAR)], [0.05], "holm") == {"P1": "supported", "P2": None, "P3": None}
    assert verdicts([(third, third, third)], [0.05], "holm") == dict.fromkeys(("P1", "P2", "P3"))
    assert verdicts([(YES, NO, UNCLEAR)], [0.05], "holm") == {"P1": "supported", "P2": "refuted", "P3": None}


def test_what_the_first_look_decided_stays_and_the_second_decides_the_rest():
    found = decide([{"P1": YES, "P2": UNCLEAR}, {"P1": UNCLEAR, "P2": YES}], [1 / 64, 0.04], ["P1", "P2"], "fixed_sequence")
    assert (found["P1"].verdict, found["P1"].look) == ("supported", 0)
    assert (found["P2"].verdict, found["P2"].look) == ("supported", 1)


def test_the_first_look_has_its_own_threshold():
    assert verdicts([(Claim(0.03, 1.0),)], [1 / 64], order=("P1",)) == {"P1": None}
    assert verdicts([(Claim(0.03, 1.0),)] * 2, [1 / 64, 0.04], order=("P1",)) == {"P1": "supported"}


def test_a_threshold_written_with_a_few_digits_is_the_same_level():
    assert verdicts([(Claim(1 / 3, 1.0),)], [0.3333333333], order=("P1",)) == {"P1": "supported"}


def test_exact_predictions_need_no_p_and_cost_no_alpha():
    exact = Claim(exact=True)
    assert verdicts([(exact, YES, NO)], [0.05]) == {"P1": "supported", "P2": "supported", "P3": "refuted"}
    assert verdicts([(exact, Claim(0.02, 1.0), Claim(0.03, 1.0))], [0.05], "holm")["P2"] == "supported"
    assert verdicts([(Claim(exact=False), YES, YES)], [0.05])["P1"] == "refuted"


def test_untestable_predictions_stay_undecided():
    assert verdicts([(Claim(), YES, YES)], [0.05]) == {"P1": None, "P2": None, "P3": None}


@pytest.mark.parametrize(
    ("primary", "expected"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "refuted"], "refuted"),
        (["inconclusive", "refuted"], "refuted"),
        (["invalid", "supported"], "invalid"),
        ([], "inconclusive"),
    ],
)
def test_the_hypothesis_stands_with_all_primary_predictions_and_falls_with_any(primary, expected):
    assert hypothesis_verdict(primary) == expected


def test_every_verdict_has_an_exit_code_of_its_own_and_none_is_that_of_an_error():
    assert len(set(EXIT_CODES.values())) == 5 and not {1, 2} & set(EXIT_CODES.values())
    assert EXIT_CODES["supported"] == 0


def test_refutations_are_told_apart():
    assert Refutation("", 0.01, 1.0, 0.05).label() == "reversed"
    assert Refutation("", 0.5, 0.01, 0.05).label() == "negligible"
    assert Refutation("", 0.5, 0.2, 0.05).label() == "too small"
    assert Refutation("violated", 0.01, 0.01, 0.05).label() == "violated"


def test_a_verdict_that_rests_on_one_seed_is_fragile():
    assert not is_fragile([1 / 32] * 6, 0.05, 1 / 32)
    assert is_fragile([1 / 32] * 5 + [3 / 32], 0.05, 1 / 32)
    assert not is_fragile([1 / 32] * 6, 1 / 64, 1 / 32), "five seeds cannot reach 1/64: their floor is enough"


def test_a_second_look_that_no_outcome_could_decide_is_futile():
    assert could_still_decide(Claim(0.6, 0.4), 0.04, 4)
    assert not could_still_decide(Claim(0.6, 0.5), 0.04, 2)
