"""Values of discrete parameters: all that the prior allows, with its probabilities."""

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior
from skbi.priors.values import bounds_of_values, log_masses, possible_values

PRIOR = JointPrior(
    {"a": stats.norm(), "n": stats.poisson(4), "k": stats.randint(-1, 2), "m": stats.geom(0.4)}
)


class Dependent:
    """A number of trials, and how many of them succeed."""

    names, discrete = ("n", "k"), np.array([True, True])
    support = np.array([[1.0, 6.0], [0.0, 6.0]])

    def ppf(self, u):
        n = stats.randint.ppf(u[:, 0], 1, 7)
        return np.column_stack([n, stats.binom.ppf(u[:, 1], n, 0.3)])

    def cdf(self, theta):
        n, k = np.asarray(theta).T
        return np.column_stack([stats.randint.cdf(n, 1, 7), stats.binom.cdf(k, n, 0.3)])


def test_the_values_hold_nearly_all_of_the_prior():
    values = possible_values(PRIOR, 1000)
    assert [v[0] for v in values] == [0, -1, 1]
    for j, v in zip([1, 2, 3], values, strict=True):
        marginal = PRIOR.marginals[PRIOR.names[j]]
        assert abs(marginal.pmf(v).sum() - 1) < 1e-11
    np.testing.assert_array_equal(bounds_of_values(PRIOR)[1][1:2], [1])


def test_impossible_values_in_between_are_left_out():
    gaps = stats.rv_discrete(values=([0, 5], [0.5, 0.5]))()
    (values,) = possible_values(JointPrior({"k": gaps}), 1000)
    np.testing.assert_array_equal(values, [0, 5])


def test_masses_are_those_of_the_marginals_and_continuous_parameters_have_none():
    theta = PRIOR.sample(50, random_state=0)
    found = log_masses(PRIOR, theta)
    np.testing.assert_array_equal(found[:, 0], 0)
    np.testing.assert_allclose(found[:, 1], stats.poisson(4).logpmf(theta[:, 1]))
    density = stats.norm.logpdf(theta[:, 0])
    np.testing.assert_allclose(found.sum(axis=1) + density, PRIOR.log_prob(theta))


def test_masses_of_a_prior_without_the_method_are_steps_of_its_distribution_function():
    theta = np.array([[3.0, 1.0], [6.0, 6.0], [2.0, 4.0]])
    found = log_masses(Dependent(), theta)
    np.testing.assert_allclose(found[:, 0], -np.log(6))
    np.testing.assert_allclose(np.exp(found[:, 1]), stats.binom.pmf(theta[:, 1], theta[:, 0], 0.3))


def test_too_many_values_are_refused_by_name():
    prior = JointPrior({"n": stats.randint(0, 5000)})
    with pytest.raises(ValueError, match=r"'n' has 5000 possible values, from 0 to 4999.*NLE"):
        possible_values(prior, 1000)
