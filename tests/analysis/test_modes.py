"""The maximum is found: inside, on a bound of the support, and of several the highest."""

import numpy as np
import pytest
from correlated import Correlated
from scipy import stats

from skbi import JointPrior, NPEEstimator, map_estimate

X = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])


def test_the_maximum_of_a_gaussian_is_its_mean():
    np.testing.assert_allclose(map_estimate(Correlated(), X, random_state=0), X, atol=1e-4)
    np.testing.assert_allclose(map_estimate(Correlated(), X[0], random_state=0), X[0], atol=1e-4)


def test_the_higher_of_two_modes_is_found():
    """A broad mode with most of the draws, and a narrow one that is three times as high."""

    class Two:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            rng = np.random.default_rng(random_state)
            narrow = rng.random((len(X), n_samples, 1)) < 0.25
            noise = rng.normal(size=narrow.shape)
            return np.where(narrow, 5 + 0.1 * noise, noise)

        def log_prob(self, theta, X):
            parts = 0.25 * stats.norm.pdf(theta, 5, 0.1) + 0.75 * stats.norm.pdf(theta, 0, 1)
            return np.log(parts[:, 0])

    assert map_estimate(Two(), np.zeros((1, 1)), random_state=0) == pytest.approx(5, abs=1e-2)


def test_a_maximum_on_a_bound_is_within_the_support():
    class Exponential:
        prior = JointPrior({"rate": stats.expon()})

        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.random.default_rng(random_state).exponential(size=(len(X), n_samples, 1))

        def log_prob(self, theta, X):
            return stats.expon.logpdf(theta[:, 0])

    (found,) = map_estimate(Exponential(), np.zeros((1, 1)), random_state=0)
    assert 0 < found[0] < 1e-6


def test_no_draw_of_a_fitted_posterior_is_denser_than_its_maximum():
    theta = np.random.default_rng(0).normal(size=(200, 2))
    data = theta + np.random.default_rng(1).normal(size=theta.shape)
    options = {"max_iter": 2, "n_transforms": 2, "hidden_layer_sizes": (8,), "n_estimators": 1}
    npe = NPEEstimator(random_state=0, **options).fit(theta, data)
    found = map_estimate(npe, data[0], n_starts=3, random_state=0)
    draws = npe.sample_posterior(data[0], 2000, random_state=1)
    assert npe.log_prob(found[None], data[:1]) >= npe.log_prob(draws, data[:1]).max()


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="n_starts must be from 1"):
        map_estimate(Correlated(), X, n_starts=0)

    class Discrete(Correlated):
        prior = JointPrior({"a": stats.norm(), "b": stats.norm(), "c": stats.poisson(2)})

    with pytest.raises(ValueError, match="discrete"):
        map_estimate(Discrete(), X)
