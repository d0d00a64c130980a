"""Statistics of few paired seeds against scipy, statsmodels, enumeration, closed forms and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from picolm.study.statistics.bootstrap import two_level_bootstrap
from picolm.study.statistics.censored import signed_ranks, speedup
from picolm.study.statistics.curves import first_separation, max_t_p, simultaneous_band
from picolm.study.statistics.events import event_alignment, local_extremes, without_trend
from picolm.study.statistics.families import fixed_sequence, holm
from picolm.study.statistics.looks import error_of_looks
from picolm.study.statistics.paired import (
    equivalence,
    leave_one_out,
    outliers,
    p_floor,
    probability_of_improvement,
    seeds_for_floor,
    sign_flip_p,
    standardised_effect,
    stouffer,
    t_interval,
    two_sided_p,
)
from picolm.study.statistics.power import (
    minimum_detectable,
    minimum_margin,
    power_of,
    power_of_equivalence,
    power_of_t,
    power_of_tost,
    sd_upper_limit,
    seeds_needed,
    seeds_needed_for_equivalence,
)
from picolm.study.statistics.shape import change_point, phases, rise_then_fall
from picolm.study.statistics.trends import page_trend, slopes


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_sign_flip_counts_the_sign_vectors_that_reach_the_sum(seeds):
    effects = normal(seeds, seeds) + 0.7
    by_hand = [
        sum(sign * effect for sign, effect in zip(signs, effects, strict=True))
        for signs in itertools.product((1, -1), repeat=seeds)
    ]
    assert sign_flip_p(effects) == np.mean(np.array(by_hand) >= effects.sum() - 1e-12)


def test_sign_flip_agrees_with_the_permutation_test_of_scipy():
    effects = normal(3, 7) + 0.5
    theirs = stats.permutation_test(
        (effects, np.zeros(7)), lambda a, b: (a - b).mean(), permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert sign_flip_p(effects) == pytest.approx(theirs.pvalue)


def test_sign_flip_of_many_studies_at_once_is_that_of_each():
    studies = normal(4, 5, 3, 6)
    together = sign_flip_p(studies, shift=0.2)
    assert together.shape == (5, 3)
    assert all(together[place] == sign_flip_p(studies[place], shift=0.2) for place in np.ndindex(5, 3))


def test_equal_effects_give_the_floor_whatever_their_rounding():
    for seeds in range(1, 13):
        assert sign_flip_p([0.1] * seeds) == 2.0**-seeds == p_floor(seeds)


def test_effects_of_exactly_the_shift_say_nothing():
    assert sign_flip_p([0.3] * 6, shift=0.3) == 1.0


def test_drawn_signs_agree_with_all_signs_and_never_give_zero(monkeypatch):
    effects = normal(5, 14) + 0.4
    exact = sign_flip_p(effects)
    monkeypatch.setattr("picolm.study.statistics.paired.ENUMERATED_UP_TO", 12)
    assert sign_flip_p(effects, seed=1) == pytest.approx(float(exact), abs=4 * np.sqrt(float(exact) / 100_000))
    assert sign_flip_p(effects, seed=1) == sign_flip_p(effects, seed=1)
    assert sign_flip_p(np.ones(40)) == 1 / 100_001 == p_floor(40)


@pytest.mark.parametrize("effects", [normal(seed, 6) + 0.3 for seed in range(5)])
def test_sign_flip_does_not_care_for_order_or_unit(effects):
    p = sign_flip_p(effects, shift=0.1)
    assert sign_flip_p(effects[::-1], shift=0.1) == p
    assert sign_flip_p(1000 * effects, shift=100.0) == p
    assert sign_flip_p(effects - 0.1) == p


def test_the_two_sides_of_a_sign_flip_test_cover_every_sign_vector():
    effects = normal(8, 6)
    assert sign_flip_p(effects) + sign_flip_p(-effects) == pytest.approx(1 + 2 / 2**6 - 1 / 2**6)


def test_sign_flip_keeps_its_level_for_symmetric_effects_of_any_size():
    heavy = np.random.default_rng(0).standard_cauchy((4000, 6))
    assert (sign_flip_p(heavy) <= 0.05).mean() == pytest.approx(3 / 64, abs=0.011)


def test_two_sided_p_is_twice_the_smaller_side_and_at_most_one():
    assert two_sided_p([1.0] * 6) == two_sided_p([-1.0] * 6) == 2 / 64
    assert two_sided_p([1.0, -1.0]) == 1.0


def test_t_interval_is_that_of_scipy():
    effects = normal(6, 6) + 1
    theirs = stats.ttest_1samp(effects, 0).confidence_interval(0.9)
    assert t_interval(effects, 0.9) == pytest.approx((theirs.low, theirs.high))
    assert t_interval([1.0]) == (-np.inf, np.inf)


def test_the_standardised_effect_has_no_bias_at_five_seeds():
    found = [standardised_effect(row) for row in normal(7, 6000, 5) + 0.8]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)
    assert np.mean(found) < 0.9 * np.mean([row.mean() / row.std(ddof=1) for row in normal(7, 6000, 5) + 0.8])
    assert standardised_effect([1.0, 1.0, 1.0]) is None and standardised_effect([1.0, 2.0]) is None


def test_probability_of_improvement_has_the_clopper_pearson_interval():
    found = probability_of_improvement([0.2, 0.1, 0.3, -0.1, 0.0])
    assert (found.wins, found.n, found.value) == (3, 4, 0.75)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 3, 2)) and found.high == pytest.approx(stats.beta.ppf(0.975, 4, 1))
    assert probability_of_improvement([0.0, 0.0]).n == 0


def test_leave_one_out_tests_all_other_seeds():
    effects = np.array([1.0, 1.2, 0.9, 1.1, -3.0])
    without = leave_one_out(effects)
    assert without[4].p == 1 / 16 and without[4].mean == pytest.approx(1.05)
    assert without[0].p == sign_flip_p(effects[1:])


def test_an_outlier_is_named_and_ordinary_seeds_are_not():
    assert outliers([1.0, 1.1, 0.9, 1.05, 5.0]) == [4]
    assert outliers([1.0, 1.1, 0.9, 1.05, 1.2]) == [] == outliers([1.0, 1.0, 1.0, 9.0])


def test_equivalence_by_t_is_the_tost_of_statsmodels():
    of, versus = normal(9, 8), normal(10, 8)
    theirs = ttost_paired(of, versus, -0.9, 0.9)[0]
    assert equivalence(of - versus, 0.9).p_t == pytest.approx(theirs)


def test_equivalence_by_sign_flip_looks_at_both_ends_of_the_margin():
    assert equivalence([0.01, -0.02, 0.0, 0.01, 0.02, -0.01], 0.1).p == 1 / 64
    assert equivalence([0.2] * 6, 0.1).p == 1.0 and equivalence([0.2] * 6, 0.1).p_outside == 2 / 64
    assert equivalence([-0.2] * 6, 0.1).p == 1.0 and equivalence([-0.2] * 6, 0.1).p_outside == 2 / 64


def test_stouffer_of_two_halves_is_a_half():
    assert stouffer([0.5, 0.5]) == pytest.approx(0.5)
    assert stouffer([0.05, 0.05]) == pytest.approx(stats.norm.sf(2 * stats.norm.isf(0.05) / np.sqrt(2)))
    assert stouffer([0.01, 1.0]) > 0.5


def test_power_of_t_is_that_of_statsmodels():
    for effect, seeds in itertools.product((0.5, 1.0, 2.0), (3, 6, 10)):
        theirs = TTestPower().power(effect, seeds, 0.05, alternative="larger")
        assert power_of_t(effect, seeds, 0.05) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seeds", [5, 6, 7])
def test_power_at_the_floor_is_that_of_all_seeds_agreeing(seeds):
    for effect in (0.8, 1.5):
        assert power_of(effect, seeds, 2.0**-seeds) == pytest.approx(stats.norm.cdf(effect) ** seeds, abs=0.01)


def test_power_of_few_seeds_goes_over_into_that_of_t():
    assert power_of(0.8, 12, 0.05) == pytest.approx(power_of_t(0.8, 12, 0.05), abs=0.03)
    assert power_of_equivalence(1.0, 12, 0.05) == pytest.approx(power_of_tost(1.0, 12, 0.05), abs=0.03)
    assert power_of(1.5, 5, 0.05) < power_of_t(1.5, 5, 0.05) - 0.1


def test_power_grows_with_the_effect():
    powers = [power_of(effect, 6, 0.05) for effect in np.linspace(0, 3, 30)]
    assert powers == sorted(powers)


def test_power_of_two_one_sided_t_tests_is_what_a_simulation_finds():
    effects = normal(12, 3000, 6)
    both = np.maximum(*(stats.ttest_1samp(sign * effects, -1.4, axis=1, alternative="greater").pvalue for sign in (1, -1)))
    assert power_of_tost(1.4, 6, 0.05) == pytest.approx((both <= 0.05).mean(), abs=0.025)


@pytest.mark.parametrize(
    ("seeds", "effect", "margin", "factor"), [(5, 1.36, 1.60, 1.56), (6, 1.19, 1.40, 1.46), (10, 0.85, 1.05, 1.29)]
)
def test_planning_numbers_are_the_published_table(seeds, effect, margin, factor):
    assert power_of_t(effect, seeds, 0.05) == pytest.approx(0.8, abs=0.01)
    assert power_of_tost(margin, seeds, 0.05) == pytest.approx(0.8, abs=0.05)
    price = 1.3 if seeds == 5 else 1.1
    assert effect - 0.02 <= minimum_detectable(seeds, 0.05) <= price * effect, "sign-flip asks for a little more than t"
    assert margin - 0.06 <= minimum_margin(seeds, 0.05) <= price * margin
    assert sd_upper_limit(1.0, seeds) == pytest.approx(factor, abs=0.01)


def test_four_seeds_can_detect_nothing_at_five_percent():
    assert seeds_for_floor(0.05) == 5 and minimum_detectable(4, 0.05) == np.inf == minimum_margin(4, 0.05)


def test_seeds_needed_are_the_fewest_with_the_power_asked_for():
    for effect in (0.4, 0.9, 3.0):
        needed = seeds_needed(effect, 0.05)
        assert power_of(effect, needed, 0.05) >= 0.8 and (needed == 5 or power_of(effect, needed - 1, 0.05) < 0.8)
    assert seeds_needed(0.0, 0.05) is None and seeds_needed(0.01, 0.05) is None
    margin = seeds_needed_for_equivalence(1.4, 0.05)
    assert power_of_equivalence(1.4, margin, 0.05) >= 0.8 > power_of_equivalence(1.4, margin - 1, 0.05)


def test_the_upper_limit_of_the_deviation_covers_four_times_in_five():
    limits = [sd_upper_limit(row.std(ddof=1), 5) for row in normal(13, 4000, 5)]
    assert np.mean(np.array(limits) > 1.0) == pytest.approx(0.8, abs=0.025)


def test_holm_is_that_of_statsmodels():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5}
    theirs = multipletests(list(p.values()), method="holm")[1]
    assert list(holm(p).values()) == pytest.approx(theirs.tolist()) and list(holm(p)) == list(p)


def test_a_fixed_sequence_carries_the_largest_p_so_far():
    assert fixed_sequence({"a": 0.01, "b": 0.2, "c": 0.03}, ["a", "b", "c"]) == {"a": 0.01, "b": 0.2, "c": 0.2}


def test_looks_spend_what_the_published_pairs_spend():
    assert error_of_looks([6], [0.05]) == 3 / 64
    assert error_of_looks([6, 10], [1 / 64, 0.04]) == pytest.approx(0.047, abs=0.002)
    assert error_of_looks([5, 10], [1 / 32, 0.025]) == pytest.approx(0.049, abs=0.002)


def test_looking_after_every_seed_doubles_the_error():
    assert error_of_looks(list(range(5, 11)), [0.05] * 6) == pytest.approx(0.10, abs=0.01)


def test_looks_with_many_seeds_follow_brownian_motion():
    effects = normal(14, 20_000, 30)
    z = np.cumsum(effects, axis=1) / np.sqrt(np.arange(1, 31))
    crossed = (z[:, 19] >= stats.norm.isf(0.02)) | (z[:, 29] >= stats.norm.isf(0.04))
    assert error_of_looks([20, 30], [0.02, 0.04]) == pytest.approx(crossed.mean(), abs=0.005)


def test_two_level_bootstrap_has_the_width_of_both_levels():
    seeds_part, items_part = normal(15, 40, 1), normal(16, 1, 300)
    effects = 1.0 + seeds_part + 2 * items_part + 0.1 * normal(17, 40, 300)
    found = two_level_bootstrap(effects, draws=2000)
    expected = np.sqrt(seeds_part.var() / 40 + 4 * items_part.var() / 300)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert found.mean == pytest.approx(effects.mean()) and found.p < 0.01 and (found.seeds, found.items) == (40, 300)


def test_items_that_resemble_each_other_are_drawn_as_clusters_of_any_size():
    sizes = np.arange(30) % 5 + 1
    cluster_part = normal(19, 1, 30).repeat(sizes)
    effects = 1.0 + cluster_part[None] + 0.01 * normal(20, 40, sizes.sum())
    found = two_level_bootstrap(effects, clusters_I=np.arange(30).repeat(sizes).astype(str), draws=4000)
    # linearised variance of a ratio of sums over clusters: Cochran (1977), Sampling Techniques, section 2.11
    deviations_C = np.bincount(np.arange(30).repeat(sizes), effects.mean(axis=0) - effects.mean())
    expected = np.sqrt(np.mean(deviations_C**2) / 30) / sizes.mean()
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)
    assert found.mean == pytest.approx(effects.mean()) and found.items == 30
    alone = two_level_bootstrap(effects, draws=4000)
    assert alone.high - alone.low < 0.8 * (found.high - found.low)


def test_items_that_all_belong_to_one_cluster_are_drawn_one_by_one():
    effects = 0.05 + normal(21, 1, 200) + 0.01 * normal(22, 6, 200)
    assert two_level_bootstrap(effects, clusters_I=["all"] * 200) == two_level_bootstrap(effects)


def test_two_level_bootstrap_of_one_constant_is_that_constant():
    found = two_level_bootstrap(np.full((5, 20), 0.3), shift=0.2, draws=500)
    assert found.low == pytest.approx(0.3) == found.high and found.p == 1 / 501


def test_the_band_holds_the_whole_curve_as_often_as_it_says():
    held, false = 0, 0
    for study in range(120):
        effects = normal(100 + study, 6, 20).cumsum(axis=1)
        band = simultaneous_band(effects, seed=study)
        held += bool(((band.low_T <= 0) & (band.high_T >= 0)).all())
        false += band.p <= 0.05
    assert held / 120 >= 0.88
    assert false / 120 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)


def test_the_band_names_where_curves_part():
    effects = 0.05 * normal(18, 6, 30)
    effects[:, 12:] += 1.0
    band = simultaneous_band(effects)
    assert first_separation(band.p_T, 0.05) == 12
    assert band.low_T[12:].min() > 0 and band.p == 1 / 64 == max_t_p(effects)


def test_curves_that_meet_again_at_the_end_are_not_apart():
    assert first_separation([0.5, 0.01, 0.5], 0.05) is None
    assert first_separation([0.01, 0.01], 0.05) == 0


def test_the_largest_t_over_one_point_is_the_sign_flip_test():
    effects = normal(19, 6, 1) + 0.5
    assert max_t_p(effects, shift=0.1) == pytest.approx(float(sign_flip_p(effects[:, 0], shift=0.1)))


def test_points_where_all_variants_are_equal_by_design_do_no_harm():
    effects = np.hstack([np.zeros((6, 1)), normal(20, 6, 4) + 3])
    assert simultaneous_band(effects).p == 1 / 64


def test_slopes_are_those_of_scipy():
    values, doses = normal(21, 4, 5), [1.0, 2.0, 4.0, 8.0, 16.0]
    assert slopes(values, doses) == pytest.approx([stats.linregress(doses, row).slope for row in values])


def test_page_finds_a_trend_in_its_direction_only():
    rising = np.arange(4) + 0.1 * normal(22, 6, 4)
    assert page_trend(rising).p < 0.001 and page_trend(-rising).p > 0.99


def test_alignment_is_found_where_dips_follow_events():
    series = 0.1 * normal(23, 200)
    near = np.zeros(200, dtype=bool)
    for event in (20, 61, 107, 160):
        near[event : event + 3] = True
        series[event : event + 3] -= 1.0
    assert event_alignment(-series, near).p == 1 / 200
    assert event_alignment(-series, near).effect == pytest.approx(1.0, abs=0.1)
    assert event_alignment(series, near).p > 0.9
    assert event_alignment(series, np.zeros(200)).p == 1.0


def test_alignment_of_unrelated_autocorrelated_series_is_rarely_found():
    false = 0
    for study in range(200):
        steps = normal(300 + study, 120)
        series = steps.copy()
        for at in range(1, 120):
            series[at] += 0.8 * series[at - 1]
        marks = np.zeros(120)
        marks[np.random.default_rng(study).integers(0, 120, 5)] = 1
        false += event_alignment(series, marks).p <= 0.05
    assert false / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_spikes_are_found_and_smooth_decay_is_not():
    curve = np.exp(-np.arange(100) / 30) + 0.001 * normal(24, 100)
    assert local_extremes(curve, deviations=6) == []
    curve[50] += 1.0
    assert local_extremes(curve, deviations=6) == [50]


def test_a_straight_line_has_no_trend_left_in_its_middle():
    assert without_trend(np.arange(50.0))[10:40] == pytest.approx(0.0)


def test_a_peak_stands_above_the_higher_end_and_beyond_its_noise():
    curve = np.concatenate([np.linspace(0, 3, 20), np.linspace(3, 1, 20)])
    peak = rise_then_fall(curve, smooth=1)
    assert peak.amplitude == pytest.approx(2.0) and peak.position in (19, 20)
    assert peak.beyond_noise > 1.5


def test_a_noisy_fall_has_no_peak_beyond_noise():
    heights = [rise_then_fall(np.linspace(3, 0, 40) + 0.2 * normal(400 + seed, 40), draws=50).beyond_noise for seed in range(30)]
    assert np.mean(heights) < 0.1


def test_the_change_point_is_the_best_split_of_all():
    series = normal(25, 30)
    series[18:] += 2.0
    costs = {
        cut: ((series[:cut] - series[:cut].mean()) ** 2).sum() + ((series[cut:] - series[cut:].mean()) ** 2).sum()
        for cut in range(1, 30)
    }
    assert change_point(series) == min(costs, key=costs.get)
    assert change_point([1.0]) is None


@pytest.mark.parametrize("corners", [[], [30], [20, 45]])
def test_phases_are_the_straight_pieces_of_a_curve(corners):
    at = np.arange(70.0)
    curve = 0.1 * at + sum((0.5 if number % 2 else -0.8) * np.maximum(at - corner, 0) for number, corner in enumerate(corners))
    assert phases(curve + 0.05 * normal(26, 70)) == len(corners) + 1


def test_speedup_without_censoring_is_the_log_ratio():
    found = speedup([50.0, 40.0], [100.0, 100.0], [False] * 2, [False] * 2, budget=200.0, at_least=1.25)
    assert found.scores == pytest.approx(np.log([2 / 1.25, 2.5 / 1.25])) and not found.ranked


def test_a_run_that_never_got_there_counts_by_rank_and_a_tie_is_a_tie():
    found = speedup([50.0, 100.0, 90.0], [100.0, 100.0, 80.0], [False, True, False], [True, True, False], budget=100.0)
    assert found.ranked and found.scores.tolist() == [2.0, 0.0, -1.0]
    assert (found.restricted_of, found.restricted_versus) == pytest.approx((80.0, 280 / 3))


def test_censoring_does_not_favour_either_side_when_a_factor_is_asked_for():
    generator = np.random.default_rng(27)
    false = np.zeros(2)
    for _ in range(800):
        slow = generator.lognormal(4.0, 0.5, 6)
        fast = generator.lognormal(4.0, 0.5, 6) / 1.3
        of, versus = np.minimum(fast, 60.0), np.minimum(slow, 60.0)
        scores = speedup(of, versus, fast > 60, slow > 60, budget=60.0, at_least=1.3).scores
        false += [sign_flip_p(scores) <= 0.05, sign_flip_p(-scores) <= 0.05]
    assert (false / 800 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 800)).all()


def test_signed_ranks_are_those_of_the_signed_rank_test():
    effects = np.array([0.3, -1.0, 0.0, np.inf, 0.5])
    assert signed_ranks(effects).tolist() == [1.0, -3.0, 0.0, 4.0, 2.0]
    finite = normal(28, 9)
    assert signed_ranks(finite)[finite > 0].sum() == stats.wilcoxon(finite, alternative="greater").statistic
