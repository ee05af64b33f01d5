"""Gaussian coordinates of any prior, also one of dependent or discrete parameters."""

import numpy as np
import pytest
from hierarchical import Hierarchical
from scipy import integrate, stats

from skbi import JointPrior, Prior
from skbi.priors import from_latent, from_normal, off_bounds, to_normal

MARGINALS = {
    "uniform": stats.uniform(-3, 5),
    "lognormal": stats.lognorm(0.7, scale=np.exp(-3)),
    "gamma": stats.gamma(0.5),
    "beta": stats.beta(0.5, 0.5),
    "student": stats.t(3),
    "truncated": stats.truncnorm(-1, 4),
}


def test_a_users_dependent_prior_is_a_prior():
    prior = Hierarchical()
    assert isinstance(prior, Prior)
    theta = prior.sample(100, random_state=0)
    z = to_normal(prior, theta)
    np.testing.assert_allclose(from_normal(prior, z), theta, rtol=1e-8)

    def density(value, scale):
        return np.exp(prior.log_prob([[scale, value]])[0])

    integral = integrate.dblquad(density, 0, 20, lambda scale: -9 * scale, lambda scale: 9 * scale)
    assert abs(integral[0] - 1) < 1e-3


@pytest.mark.parametrize(
    "prior", [JointPrior({"scale": stats.expon(), "value": stats.norm()}), Hierarchical()]
)
def test_off_bounds_replaces_the_coordinates_of_bounds_only(prior):
    z = to_normal(prior, np.array([[1.0, -np.inf], [1.0, 0.5]]))
    replaced = off_bounds(prior, z, edge=3.0)
    assert replaced[0, 1] == -3.0
    replaced[0, 1] = z[0, 1]
    np.testing.assert_array_equal(replaced, z)


def test_latent_coordinates_give_draws_of_the_prior():
    marginals = {"k": stats.poisson(3), "a": stats.gamma(2), "c": stats.bernoulli(0.3)}
    prior = JointPrior(marginals)
    z = np.random.default_rng(0).normal(size=(20_000, 3))
    theta = from_latent(prior, z)
    assert stats.kstest(theta[:, 1], stats.gamma(2).cdf).pvalue > 1e-3
    for j, name in ((0, "k"), (2, "c")):
        values, counts = np.unique(theta[:, j], return_counts=True)
        expected = marginals[name].pmf(values)
        assert (np.abs(counts / 20_000 - expected) < 5 * np.sqrt(expected / 20_000)).all()
    continuous = prior.without("k", "c")
    np.testing.assert_array_equal(from_latent(continuous, z[:, 1:2]), theta[:, 1:2])


def test_latent_coordinates_of_continuous_parameters_are_their_gaussian_ones():
    z = np.random.default_rng(0).normal(size=(200, len(MARGINALS) + 2))
    marginals = {"k": stats.poisson(3), **MARGINALS, "c": stats.bernoulli(0.3)}
    prior = JointPrior(marginals)
    theta = from_latent(prior, z)
    np.testing.assert_allclose(to_normal(prior, theta)[:, 1:-1], z[:, 1:-1], atol=1e-6)
    np.testing.assert_array_equal(theta[:, 0], stats.poisson(3).ppf(stats.norm.cdf(z[:, 0])))


@pytest.mark.parametrize("prior", [JointPrior({"k": stats.geom(0.2), **MARGINALS}), Hierarchical()])
def test_latent_coordinates_of_any_size_give_possible_parameters(prior):
    p = len(prior.names)
    z = np.array([-1e6, -40.0, -9.0, 9.0, 40.0, 1e6])[:, None] * np.ones(p)
    theta = from_latent(prior, z)
    assert np.isfinite(theta).all()
    low, high = prior.support.T
    continuous = ~prior.discrete
    assert ((low < theta) & (theta < high))[:, continuous].all()
    if not continuous.all():
        assert (theta[:, ~continuous] >= low[~continuous]).all()


def test_latent_coordinates_of_a_prior_of_ones_own():
    class Coin:  # the coin decides the scale
        names, discrete = ("k", "a"), np.array([True, False])
        support = np.array([[0, 1], [-np.inf, np.inf]])

        def ppf(self, u):
            k = stats.bernoulli(0.5).ppf(u[:, 0])
            return np.column_stack([k, (1 + 9 * k) * stats.norm.ppf(u[:, 1])])

    theta = from_latent(Coin(), np.random.default_rng(0).normal(size=(4000, 2)))
    for k in (0, 1):
        assert stats.kstest(theta[theta[:, 0] == k, 1], stats.norm(0, 1 + 9 * k).cdf).pvalue > 1e-3
