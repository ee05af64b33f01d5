"""Distributions of torch as priors: the same densities, and maps to Gaussian coordinates."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as D

from skbi import JointPrior
from skbi.priors.torch_priors import _FAMILIES

t = torch.tensor
UNIVARIATE = {
    D.Normal: D.Normal(1.0, 2.0),
    D.Uniform: D.Uniform(-1.0, 3.0),
    D.LogNormal: D.LogNormal(0.5, 0.7),
    D.HalfNormal: D.HalfNormal(2.0),
    D.Exponential: D.Exponential(3.0),
    D.Gamma: D.Gamma(2.0, 3.0),
    D.Beta: D.Beta(2.0, 3.0),
    D.Cauchy: D.Cauchy(1.0, 2.0),
    D.HalfCauchy: D.HalfCauchy(2.0),
    D.Laplace: D.Laplace(1.0, 2.0),
    D.StudentT: D.StudentT(4.0, 1.0, 2.0),
    D.Bernoulli: D.Bernoulli(0.3),
    D.Binomial: D.Binomial(5, t(0.3)),
    D.Poisson: D.Poisson(3.0),
    D.Geometric: D.Geometric(0.3),
}
PAIR = D.Normal(t([0.0, 1.0]), t([1.0, 2.0]))
JOINT = {
    "independent": D.Independent(PAIR, 1),
    "uniform": D.Independent(D.Uniform(t([0.0, 1.0]), t([1.0, 3.0])), 1),
    "normal": D.MultivariateNormal(t([0.0, 1.0]), t([[1.0, 0.8], [0.8, 1.0]])),
    "exp": D.Independent(D.TransformedDistribution(PAIR, [D.ExpTransform()]), 1),
    "sigmoid": D.Independent(
        D.TransformedDistribution(PAIR, [D.SigmoidTransform(), D.AffineTransform(2.0, -3.0)]), 1
    ),
}


def test_every_family_is_tested():
    assert set(UNIVARIATE) == set(_FAMILIES)


@pytest.mark.parametrize("distribution", UNIVARIATE.values(), ids=lambda d: type(d).__name__)
def test_univariate_distributions_are_those_of_scipy(distribution):
    prior = JointPrior({"a": distribution})
    theta = prior.sample(200, random_state=0)
    expected = distribution.log_prob(torch.as_tensor(theta[:, 0]))
    np.testing.assert_allclose(prior.log_prob(theta), expected, rtol=1e-4, atol=1e-5)
    twin = pickle.loads(pickle.dumps(prior))
    np.testing.assert_array_equal(twin.log_prob(theta), prior.log_prob(theta))


@pytest.mark.parametrize("name", JOINT)
def test_joint_distributions_have_their_density_and_gaussian_coordinates(name):
    distribution, before = JOINT[name], torch.get_rng_state()
    prior = JointPrior({("a", "b"): distribution})
    theta = prior.sample(3000, random_state=0)
    expected = distribution.log_prob(torch.as_tensor(theta))
    np.testing.assert_allclose(prior.log_prob(theta), expected, rtol=1e-4, atol=1e-4)
    z = prior.to_normal(theta)
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    np.testing.assert_allclose(prior.from_normal(z), theta, rtol=1e-6)
    assert ((theta > prior.support[:, 0]) & (theta < prior.support[:, 1])).all()
    twin = pickle.loads(pickle.dumps(prior))
    np.testing.assert_array_equal(twin.log_prob(theta), prior.log_prob(theta))
    assert torch.equal(torch.get_rng_state(), before)


def test_bounds_follow_the_transforms():
    prior = JointPrior({("a", "b"): JOINT["sigmoid"]})
    np.testing.assert_allclose(prior.support, [[-1, 2], [-1, 2]])
    np.testing.assert_array_equal(prior.log_prob([[-2.0, 0.0], [0.0, 3.0]]), -np.inf)


def test_shares_are_those_of_scipy():
    prior = JointPrior({("a", "b"): D.Dirichlet(t([1.0, 2.0, 3.0]))})
    theta = prior.sample(20, random_state=0)
    shares = np.column_stack([theta, 1 - theta.sum(axis=1)])
    expected = stats.dirichlet([1.0, 2.0, 3.0]).logpdf(shares.T)
    np.testing.assert_allclose(prior.log_prob(theta), expected)


def test_what_has_no_known_coordinates_says_so():
    mixture = D.MixtureSameFamily(D.Categorical(t([0.5, 0.5])), PAIR)
    with pytest.raises(TypeError, match=r"'a' must be one whose Gaussian.*got MixtureSameFamily"):
        JointPrior({"a": mixture})
    counts = D.TransformedDistribution(D.Poisson(3.0), [D.AffineTransform(1.0, 2.0)])
    with pytest.raises(TypeError, match="continuous parameters"):
        JointPrior({"a": counts})
