"""Truncated rounds: draws of the prior inside a region, and posteriors closer to the exact one."""

import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import FunctionTransformer

from skbi import JointPrior, NPEEstimator, sequential
from skbi.estimators.sequential import Region

PRIOR = JointPrior({"a": stats.uniform(-3, 6), "b": stats.gamma(2)})
QUICK = {"max_iter": 10, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}
X_OBS = np.array([0.5, 1.0])


def noisy(theta, noise=0.5):
    return theta + noise * np.random.default_rng(len(theta)).normal(size=theta.shape)


@pytest.fixture(scope="module")
def npe():
    theta = PRIOR.sample(1000, random_state=0)
    return NPEEstimator(prior=PRIOR, **QUICK).fit(theta, noisy(theta))


def test_a_region_holds_the_posterior_but_a_share(npe):
    for epsilon in (0.1, 0.01):
        region = Region(npe, X_OBS, epsilon, np.random.default_rng(0))
        inside = region.contains(npe.sample_posterior(X_OBS, 10_000, random_state=1))
        assert abs(inside.mean() - (1 - epsilon)) < 6 * np.sqrt(epsilon / 10_000)


def test_draws_inside_a_region_are_the_priors(npe):
    """Against draws of the whole prior, of which those outside are thrown away."""
    rng = np.random.default_rng(0)
    region = Region(npe, X_OBS, 0.01, rng)
    inner = Region(npe, X_OBS + 0.3, 0.01, rng, within=region)
    slow = PRIOR.sample(100_000, random_state=1)
    for r in (region, inner):
        draws, expected = r.sample(3000, rng), slow[r.contains(slow)]
        assert draws.shape == (3000, 2)
        assert r.contains(draws).all()
        for x, y in zip(draws.T, expected.T, strict=True):
            assert stats.ks_2samp(x, y).pvalue > 1e-3
    assert region.contains(inner.sample(1000, rng)).all()


def test_a_region_that_cannot_be_hit_says_so(npe, monkeypatch):
    monkeypatch.setattr(sys.modules[Region.__module__], "_N_DRAWS", 100)
    region = Region(npe, X_OBS, 0.01, np.random.default_rng(0))
    region.level = np.inf
    with pytest.raises(RuntimeError, match=r"Of 10000 draws .* 0 lie inside it, 5 were asked for"):
        region.sample(5, np.random.default_rng(0))


def test_rounds_come_closer_to_a_narrow_posterior_than_as_many_pairs_at_once():
    """Theta ~ U(-50, 50)^2, x = theta + 0.1 noise."""
    prior = JointPrior({name: stats.uniform(-50, 100) for name in "ab"})
    simulator = FunctionTransformer(noisy, kw_args={"noise": 0.1})
    x, exact = np.array([20.0, -30.0]), stats.multivariate_normal([20.0, -30.0], 0.01 * np.eye(2))
    truth = exact.rvs(2000, random_state=0)
    options = {"rounds": 3, "n_samples": 500, "random_state": 0}
    npe, theta, X = sequential(prior, simulator, x, NPEEstimator(max_iter=15), **options)
    assert len(theta) == len(X) < 1500
    at_once = prior.sample(1500, random_state=0)
    one = NPEEstimator(prior=prior, max_iter=15, random_state=0).fit(at_once, noisy(at_once, 0.1))
    gap = exact.logpdf(truth).mean() - npe.log_prob(truth, x).mean()
    assert 0 < gap < 0.2
    assert gap < exact.logpdf(truth).mean() - one.log_prob(truth, x).mean()
    again, *_ = sequential(prior, simulator, x, NPEEstimator(max_iter=15), **options)
    np.testing.assert_array_equal(again.log_prob(truth, x), npe.log_prob(truth, x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "positive integer; got 0"),
        ({"n_samples": 1.5}, "positive integer; got 1.5"),
        ({"X_obs": [1.0]}, r"one observation.*\(50, 2\); got shape \(1,\)"),
        ({"X_obs": [[1.0, 2.0]]}, r"one observation.*got shape \(1, 2\)"),
    ],
)
def test_bad_requests_fail_before_training(options, message):
    simulator = FunctionTransformer(noisy)
    arguments = {"X_obs": X_OBS, "n_samples": 50, "random_state": 0, **options}
    with pytest.raises(ValueError, match=message):
        sequential(PRIOR, simulator, estimator=None, **arguments)


def test_progress_is_shown_on_request(capsys):
    simulator = FunctionTransformer(noisy)
    options = {"rounds": 1, "n_samples": 50, "random_state": 0}
    sequential(PRIOR, simulator, X_OBS, NPEEstimator(**QUICK), **options)
    assert capsys.readouterr() == ("", "")
    sequential(PRIOR, simulator, X_OBS, NPEEstimator(**QUICK), verbose=1, **options)
    assert "sequential" in capsys.readouterr().err
