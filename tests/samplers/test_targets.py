"""The density that NUTS samples against sums and differences, and the chains' starting points."""

import numpy as np
import pytest
from likelihoods import CoinAndShift, GivenLikelihood, LinearGaussian, flat
from scipy import stats
from scipy.special import logsumexp

from skbi import JointPrior
from skbi.samplers.nuts import nuts
from skbi.samplers.targets import Target, population_monte_carlo, shrunk_covariance


def test_discrete_parameters_are_summed_out():
    model = CoinAndShift()
    z = np.linspace(-2, 2, 5)[:, None]
    value, _ = Target(model, model.prior)(z)
    joint = [
        model.prior.log_prob(theta) + model(theta)
        for theta in (np.column_stack([np.full(5, k), z]) for k in (0.0, 1.0))
    ]
    np.testing.assert_allclose(value, logsumexp(joint, axis=0))


@pytest.mark.parametrize("model", [LinearGaussian(p=3), CoinAndShift()])
def test_the_gradient_is_that_of_the_density(model):
    target = Target(model, model.prior)
    k, step = int((~target.discrete).sum()), 1e-5
    z = np.random.default_rng(0).normal(size=(10, k))
    _, gradient = target(z)
    for j, move in enumerate(step * np.eye(k)):
        slope = (target(z + move)[0] - target(z - move)[0]) / (2 * step)
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-5, atol=1e-5)


def test_discrete_parameters_are_drawn_given_the_continuous_ones():
    model, n, a = CoinAndShift(), 20_000, 0.3
    target = Target(model, model.prior)
    draws = target.draw_discrete(np.full((n, 1), a), np.random.default_rng(0))
    theta = np.array([[0.0, a], [1.0, a]])
    log_joint = model(theta) + model.prior.log_prob(theta)
    probability = np.exp(log_joint[1] - logsumexp(log_joint))
    assert abs(draws[:, 0].mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / n)
    np.testing.assert_array_equal(draws[:, 1], a)


def test_what_nuts_cannot_sample_says_so():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="enumerate"):
        nuts(flat, JointPrior({"k": stats.bernoulli(0.5)}), 1, rng)
    with pytest.raises(ValueError, match="combinations"):
        nuts(flat, JointPrior({"k": stats.randint(0, 100), "a": stats.norm()}), 1, rng)


def test_population_monte_carlo_finds_the_posterior():
    model = LinearGaussian(p=3, noise=0.05)
    z, weights = population_monte_carlo(Target(model, model.prior), np.random.default_rng(0))
    assert weights.sum() == pytest.approx(1)
    ess = 1 / (weights**2).sum()
    assert ess >= 200 / 8
    error = (weights @ z - model.mean) / np.sqrt(np.diag(model.covariance) / ess)
    assert np.abs(error).max() < 4


def test_impossible_values_of_discrete_parameters_are_no_longer_summed_over():
    likelihood = GivenLikelihood(lambda theta: np.where(theta[:, 0] == 1, 0.0, -100.0), None)
    prior = JointPrior({"k": stats.randint(0, 4), "a": stats.norm()})
    target = Target(likelihood, prior)
    population_monte_carlo(target, np.random.default_rng(0))
    np.testing.assert_array_equal(target.combinations, [[1.0]])


def test_a_shrunk_covariance_is_positive_definite_and_tends_to_the_covariance():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 10))
    np.linalg.cholesky(shrunk_covariance(few, np.full(3, 1 / 3)))
    many = rng.normal(size=(100_000, 2)) @ np.array([[1.0, 0.0], [0.9, 0.2]])
    covariance = shrunk_covariance(many, np.full(len(many), 1 / len(many)))
    np.testing.assert_allclose(covariance, np.cov(many.T, bias=True), rtol=1e-3)
