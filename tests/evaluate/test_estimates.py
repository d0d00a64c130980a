from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api
from scipy import stats

from picolm.evaluate.estimates import Estimate, exponential_of, mean_of, mean_of_estimates, ratio_of

RNG = np.random.default_rng(0)


def test_the_error_of_a_mean_is_that_of_scipy():
    values = RNG.normal(size=40)
    assert mean_of(values) == pytest.approx((values.mean(), stats.sem(values), 40))


def test_the_clustered_error_of_a_mean_is_that_of_statsmodels():
    groups = np.repeat(np.arange(8), [3, 9, 4, 4, 10, 2, 6, 5])
    values = RNG.normal(size=len(groups)) + RNG.normal(size=8)[groups]
    fit = statsmodels.api.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    found = mean_of(values, list(groups))
    assert found.standard_error == pytest.approx(float(fit.bse[0]) * math.sqrt(8 / 7))


def test_every_observation_its_own_cluster_is_no_clustering():
    values = RNG.normal(size=12)
    assert mean_of(values, list("abcdefghijkl")) == pytest.approx(mean_of(values))


def test_the_error_of_a_ratio_matches_the_spread_over_repeated_samples():
    def sample(rng: np.random.Generator) -> Estimate:
        tokens = rng.integers(5, 400, 60)
        losses = tokens * rng.normal(3.0, 0.4, 60) + rng.normal(0, 5, 60)
        return ratio_of(losses, tokens)

    drawn = [sample(np.random.default_rng(seed)) for seed in range(2000)]
    spread = np.std([each.value for each in drawn])
    assert np.mean([each.standard_error for each in drawn]) == pytest.approx(spread, rel=0.05)


def test_a_ratio_with_equal_denominators_is_a_mean():
    values = RNG.normal(size=9)
    assert ratio_of(values * 7, np.full(9, 7))[:2] == pytest.approx(mean_of(values)[:2])


def test_one_observation_has_a_value_and_no_error():
    assert mean_of([2.0]) == Estimate(2.0, None, 1)
    assert ratio_of([3.0], [2.0]) == Estimate(1.5, None, 1)
    assert mean_of([]) == Estimate(None, None, 0)


def test_an_unweighted_mean_of_estimates_adds_variances():
    assert mean_of_estimates([Estimate(1.0, 0.3, 5), Estimate(3.0, 0.4, 7)]) == Estimate(2.0, pytest.approx(0.25), 12)


def test_perplexity_of_a_hopeless_loss_is_undefined_not_infinite():
    assert exponential_of(Estimate(800.0, 1.0, 3)) == Estimate(None, None, 3)
    assert exponential_of(Estimate(2.0, 0.1, 3)) == pytest.approx((math.exp(2), 0.1 * math.exp(2), 3))
