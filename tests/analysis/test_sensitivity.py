"""The posterior under another prior has its closed form, and k tells where it cannot be known."""

import numpy as np
import pytest
from known_posterior import Gaussian
from scipy import stats

from skbi import JointPrior, prior_sensitivity

X = np.array([[1.0, -0.5]])


class Known(Gaussian):
    """It knows its prior."""

    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})


def test_moments_are_those_of_the_exact_posterior():
    """Under N(m, s) and noise 1: precision 1 + 1 / s^2, mean (x + m / s^2) / precision."""
    other = JointPrior({"a": stats.norm(0, 2), "b": stats.norm(0.5, 1)})
    found = prior_sensitivity(Known(), X, other, n_samples=20_000, random_state=0)
    mean, sd = np.array([0.8, 0.0]), np.array([0.8**0.5, 0.5**0.5])
    np.testing.assert_allclose(found.shift, (mean - X[0] / 2) / 0.5**0.5, atol=0.05)
    np.testing.assert_allclose(found.sd_ratio, sd / 0.5**0.5, atol=0.05)
    np.testing.assert_allclose(found.reweighted.mean(axis=0), mean, atol=0.05)
    assert found.pareto_k < 0.7
    assert "a: mean moves by +0.4" in str(found)


def test_the_same_prior_changes_nothing():
    found = prior_sensitivity(Known(), X[0], Known.prior, n_samples=500, random_state=0)
    np.testing.assert_allclose(found.shift, 0, atol=1e-12)
    assert found.ess == pytest.approx(500)


def test_a_prior_beyond_the_draws_is_warned_of():
    far = JointPrior({"a": stats.norm(8, 0.3), "b": stats.norm()})
    with pytest.warns(UserWarning, match="heavy tail"):
        prior_sensitivity(Known(), X, far, n_samples=2000, random_state=0)


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match="an estimator with a prior"):
        prior_sensitivity(Gaussian(), X, Known.prior)
    with pytest.raises(ValueError, match="must have the parameters"):
        prior_sensitivity(Known(), X, JointPrior({"a": stats.norm()}))
    with pytest.raises(ValueError, match="one observation; got 2"):
        prior_sensitivity(Known(), np.vstack([X, X]), Known.prior)
    nowhere = JointPrior({"a": stats.uniform(50, 1), "b": stats.norm()})
    with pytest.raises(ValueError, match="no density at any draw"):
        prior_sensitivity(Known(), X, nowhere)
