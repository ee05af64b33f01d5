"""The density at one observation is the estimator's."""

import numpy as np
import pytest
from correlated import Correlated

from skbi.analysis.densities import log_density_at


def test_the_density_is_that_of_the_estimator():
    theta, X = np.random.default_rng(0).normal(size=(5, 3)), np.ones((1, 3))
    expected = Correlated().log_prob(theta, X)
    np.testing.assert_array_equal(log_density_at(Correlated(), X)(theta), expected)


def test_a_posterior_is_preferred_to_a_likelihood():
    class Likelihood(Correlated):
        def log_posterior(self, theta, X):
            return self.log_prob(theta, X) - 7

    theta, X = np.zeros((1, 3)), np.zeros((1, 3))
    gap = log_density_at(Likelihood(), X)(theta) - log_density_at(Correlated(), X)(theta)
    assert gap == -7


def test_what_has_no_density_is_refused():
    with pytest.raises(TypeError, match="no log_prob"):
        log_density_at(object(), None)
