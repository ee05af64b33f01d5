"""Conditionals of a Gaussian have their closed form."""

import numpy as np
import pytest
from correlated import COVARIANCE, Correlated
from scipy import stats

from skbi import ConditionalPosterior, JointPrior

X = np.array([[1.0, -2.0, 0.5]])


class UnderPrior(Correlated):
    """It has a wide prior."""

    prior = JointPrior({name: stats.norm(0, 5) for name in "abc"})


@pytest.mark.parametrize("estimator", [Correlated(), UnderPrior()])
def test_draws_have_the_conditional_moments(estimator):
    conditional = ConditionalPosterior(estimator, {"b": 1.0})
    assert conditional.parameter_names_in_ == ["a", "c"]
    draws = conditional.sample_posterior(X, 4000, random_state=0)[0]
    slope = COVARIANCE[[0, 2], 1] / COVARIANCE[1, 1]
    covariance = COVARIANCE[np.ix_([0, 2], [0, 2])] - np.outer(slope, COVARIANCE[1, [0, 2]])
    np.testing.assert_allclose(draws.mean(axis=0), X[0, [0, 2]] + slope * 3, atol=0.1)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1)


def test_the_density_is_that_of_all_parameters_at_the_given_values():
    conditional = ConditionalPosterior(Correlated(), {"c": 0.2, "a": 1.0})
    theta = np.array([[0.0], [2.0]])
    full = np.column_stack([[1.0, 1.0], theta, [0.2, 0.2]])
    np.testing.assert_array_equal(
        conditional.log_posterior(theta, X), Correlated().log_prob(full, X)
    )


def test_one_observation_is_the_first_of_its_batch():
    conditional = ConditionalPosterior(Correlated(), {"b": 1.0, "c": 0.0})
    one = conditional.sample_posterior(X[0], 50, random_state=0)
    np.testing.assert_array_equal(one, conditional.sample_posterior(X, 50, random_state=0)[0])


@pytest.mark.parametrize("given", [{}, {"z": 1.0}, {"a": 0.0, "b": 0.0, "c": 0.0}])
def test_values_of_some_parameters_are_needed(given):
    with pytest.raises(ValueError, match=r"some, not all, of the parameters \['a', 'b', 'c'\]"):
        ConditionalPosterior(Correlated(), given)
