"""Simulations that fail when x < 0: the likelihood of success, and posteriors, in closed form."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior, NLEEstimator
from skbi.estimators.failures import failed_rows

PRIOR = JointPrior({"m": stats.uniform(-2, 4)})


@pytest.fixture(scope="module")
def fitted():
    """NLE of x ~ N(m, 1), 0 < x, from 4,000 simulations."""
    theta = PRIOR.sample(4000, random_state=0)
    x = theta + np.random.default_rng(1).normal(size=(4000, 1))
    X = np.where(x < 0, np.nan, x)
    return NLEEstimator(prior=PRIOR, failures="learn", max_iter=20, random_state=0).fit(theta, X)


def test_the_probability_of_failure_is_learnt(fitted):
    m = np.linspace(-1.9, 1.9, 39)[:, None]
    log_p = fitted.log_prob(m, np.full((39, 1), np.nan))
    np.testing.assert_allclose(np.exp(log_p), stats.norm.cdf(-m[:, 0]), atol=0.05)


def test_success_and_failure_together_have_probability_one(fitted):
    x = np.linspace(1e-3, 8, 2001)[:, None]
    for m in (-1.5, 0.0, 1.5):
        density = np.exp(fitted.log_prob([[m]], x))
        total = np.trapezoid(density, x[:, 0]) + np.exp(fitted.log_prob([[m]], [[np.nan]]))[0]
        assert abs(total - 1) < 0.03


def test_posteriors_know_that_the_simulation_did_not_fail(fitted):
    grid = np.linspace(-2, 2, 4001)
    for x in (0.3, 1.0):
        weights = stats.norm.pdf(x, grid)  # of x and success together: no normalisation by m
        exact = (grid * weights).sum() / weights.sum()
        draws = fitted.sample_posterior(np.array([x]), 2000, random_state=0)
        assert abs(draws.mean() - exact) < 0.15  # 0.2 sd; dropping failures is off by 0.9


def test_sampling_adds_up_points_and_gradients_agree(fitted):
    x = np.array([[[0.3], [1.2], [2.0]]])
    draws = {s: fitted.sample_posterior(x, 400, sampler=s, random_state=0) for s in ("smc", "nuts")}
    grid = np.linspace(-2, 2, 4001)
    weights = np.exp(sum(stats.norm.logpdf(v, grid) for v in x.ravel()))
    exact = (grid * weights).sum() / weights.sum()
    for found in draws.values():
        assert abs(found.mean() - exact) < 0.15


def test_scores_count_failures_and_pairs_may_be_mixed(fitted):
    theta, X = [[0.5], [0.5], [-1.0]], [[0.2], [np.nan], [np.nan]]
    values = fitted.log_prob(theta, X)
    np.testing.assert_allclose(values[0], fitted.log_prob([[0.5]], [[0.2]])[0], rtol=1e-6)
    np.testing.assert_allclose(fitted.score(theta, X), values.mean())
    assert fitted.log_prob([[5.0]], [[np.nan]])[0] == -np.inf
    draws = np.linspace(-1, 1, 6).reshape(2, 3, 1)
    many = fitted.log_prob(draws, [[np.nan], [0.7]])
    for i, x in enumerate([[np.nan], [0.7]]):
        np.testing.assert_allclose(many[i], fitted.log_prob(draws[i], [x]), rtol=1e-6)


def test_failures_are_an_error_unless_they_are_to_be_learnt():
    theta, X = PRIOR.sample(20, random_state=0), np.ones((20, 1))
    X[3] = np.nan
    with pytest.raises(ValueError, match="failures='learn'"):
        NLEEstimator(prior=PRIOR).fit(theta, X)
    with pytest.raises(ValueError, match=r"single points, of shape \(n, d\)"):
        NLEEstimator(prior=PRIOR, failures="learn").fit(theta, X[:, None])
    assert failed_rows([[np.nan, 1.0], [np.nan, np.nan]]).tolist() == [False, True]
