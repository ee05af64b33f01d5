"""Importance sampling against closed forms, its proposals, and the smoothing of its weights."""

import math
import re

import numpy as np
import pytest
from arviz_stats.base import array_stats
from likelihoods import LinearGaussian
from scipy import stats
from scipy.special import logsumexp

from skbi.samplers.importance import (
    AmortisedProposal,
    importance,
    pareto_smoothed,
    systematic_resample,
)


class Misfit:
    """The posterior of a `LinearGaussian`, moved and scaled, as a proposal."""

    def __init__(self, model, shift=0.0, scale=1.0):
        sd = np.sqrt(np.diag(model.covariance))
        self.q = stats.multivariate_normal(model.mean + shift * sd, scale**2 * model.covariance)

    def sample(self, n, rng):
        return self.q.rvs(n, random_state=rng)

    def log_prob(self, theta):
        return self.q.logpdf(theta)


class Amortised:
    """The posterior of a `LinearGaussian` for any x, with the methods of an estimator."""

    def __init__(self, model):
        self.model = model

    def posterior(self, x):
        mean = self.model.covariance @ self.model.A.T @ x / self.model.noise**2
        return stats.multivariate_normal(mean, self.model.covariance)

    def sample_posterior(self, X_obs, n_samples=1000, *, random_state=None):
        return self.posterior(X_obs).rvs(n_samples, random_state=random_state)

    def log_prob(self, theta, X):
        return self.posterior(X).logpdf(theta)


@pytest.mark.parametrize(
    "misfit", [{}, {"shift": 0.7}, {"scale": 1.5}, {"shift": -0.5, "scale": 0.9}]
)
def test_reweighting_corrects_a_proposal_and_knows_the_evidence(misfit):
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"proposal": Misfit(model, **misfit), "n_proposals": 20_000}
    draws, info = importance(model, model.prior, 1000, rng, **options)
    assert abs(info.log_evidence - model.log_evidence) < 4 * info.log_evidence_error
    assert info.log_evidence_error == pytest.approx(np.sqrt(1 / info.ess[0] - 1 / 20_000))
    assert info.pareto_k < 0.7
    assert info.warnings == ()
    error = (draws.mean(axis=0) - model.mean) / np.sqrt(np.diag(model.covariance) / 1000)
    assert np.abs(error).max() < 4
    np.testing.assert_allclose(np.cov(draws.T), model.covariance, rtol=0.15)


def test_without_a_misfit_every_proposal_counts():
    """Nearly: one in twenty comes from the prior, where the likelihood is small."""
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"proposal": Misfit(model), "n_proposals": 10_000}
    _, info = importance(model, model.prior, 100, rng, **options)
    assert 9_000 < info.ess[0] <= 9_600


def test_a_proposal_that_misses_the_posterior_is_reported():
    model, rng = LinearGaussian(noise=0.05), np.random.default_rng(0)
    both = "misses too much of the posterior|Raise n_proposals"
    _, info = importance(model, model.prior, 500, rng, proposal=Misfit(model, shift=9))
    assert len(info.warnings) == 2
    assert [re.search(both, message).group() for message in info.warnings] == both.split("|")
    assert info.pareto_k > 0.7


def test_proposals_without_any_likelihood_are_an_error():
    model, rng = LinearGaussian(), np.random.default_rng(0)

    def nowhere(theta):
        return np.full(len(theta), -np.inf)

    with pytest.raises(ValueError, match="likelihood above zero"):
        importance(nowhere, model.prior, 10, rng, proposal=Misfit(model))


def test_an_amortised_posterior_is_a_proposal_at_its_observation():
    model = LinearGaussian()
    proposal, posterior = AmortisedProposal(Amortised(model), model.x), Misfit(model)
    draws = proposal.sample(5, np.random.default_rng(0))
    np.testing.assert_allclose(draws, posterior.sample(5, np.random.default_rng(0)))
    np.testing.assert_allclose(proposal.log_prob(draws), posterior.log_prob(draws))
    rng = np.random.default_rng(0)
    _, info = importance(model, model.prior, 100, rng, proposal=proposal, n_proposals=10_000)
    assert 9_000 < info.ess[0] <= 9_600


# ---- resampling


def test_every_point_is_drawn_as_often_as_its_weight_says_but_for_rounding():
    rng = np.random.default_rng(0)
    points, weights = np.arange(20.0)[:, None], rng.random(20)
    draws, ess, _ = systematic_resample(points, weights, 1000, rng, "")
    expected = 1000 * weights / weights.sum()
    assert np.abs(np.bincount(draws[:, 0].astype(int), minlength=20) - expected).max() < 1
    assert ess == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


@pytest.mark.parametrize(("n_samples", "repeats"), [(4, False), (5, True)])
def test_more_draws_than_independent_points_are_reported(n_samples, repeats):
    rng = np.random.default_rng(0)
    _, _, message = systematic_resample(np.zeros((4, 1)), np.ones(4), n_samples, rng, "Do more.")
    assert (message is not None) == repeats
    assert message is None or message.endswith("Do more.")


# ---- smoothing


@pytest.mark.parametrize("k", [0.2, 0.6, 1.2])
def test_the_tail_index_of_pareto_weights_is_found(k):
    rng = np.random.default_rng(0)
    found = [pareto_smoothed(k * rng.standard_exponential(10_000))[1] for _ in range(20)]
    assert abs(np.mean(found) - k) < 0.1  # each has a standard error of about 0.1


def test_smoothing_changes_the_largest_weights_only_and_keeps_their_order():
    log_weights = np.random.default_rng(0).normal(size=1000)
    smooth, _ = pareto_smoothed(log_weights)
    order = np.argsort(log_weights)
    np.testing.assert_array_equal(smooth[order[:-95]], log_weights[order[:-95]])
    assert (np.diff(smooth[order]) >= 0).all()
    assert smooth.max() <= log_weights.max()


@pytest.mark.parametrize("k", [0.2, 0.6, 1.2])
def test_heavy_tails_are_smoothed_as_by_arviz(k):
    log_weights = k * np.random.default_rng(0).standard_exponential(1000)
    smooth, found = pareto_smoothed(log_weights)
    expected, expected_k = array_stats.psislw(-log_weights)  # of weights whose sum is 1
    np.testing.assert_allclose(smooth - logsumexp(smooth), expected, atol=1e-12)
    assert found == expected_k


def test_smoothing_keeps_the_scale_of_weights_and_leaves_out_those_of_zero():
    log_weights = np.random.default_rng(0).normal(size=1000)
    smooth, k = pareto_smoothed(log_weights)
    scaled, scaled_k = pareto_smoothed(log_weights - 1e4)
    np.testing.assert_allclose(scaled, smooth - 1e4, rtol=0, atol=1e-9)
    assert scaled_k == pytest.approx(k)
    padded, padded_k = pareto_smoothed(np.insert(log_weights, [0, 500], -np.inf))
    np.testing.assert_array_equal(padded, np.insert(smooth, [0, 500], -np.inf))
    assert padded_k == k


def test_a_distribution_is_fitted_only_where_there_is_one():
    rng = np.random.default_rng(0)
    largest = np.concatenate([np.zeros(94), rng.normal(-5, 1, 906)])  # the tail is 94 of 1,000
    two_values = np.where(rng.random(1000) < 0.03, 0.0, -1.0)
    few = np.append(rng.normal(size=24), np.full(100, -np.inf))
    spread = 1000 * rng.normal(size=1000)  # a weight that outweighs the rest by e^600
    for log_weights in (largest, two_values, few, np.zeros(100), np.zeros(3), np.zeros(0), spread):
        smooth, k = pareto_smoothed(log_weights)
        np.testing.assert_array_equal(smooth, log_weights)
        assert k == math.inf if log_weights is spread else math.isnan(k)


def test_light_tails_are_not_smoothed():
    """Weights of a narrow Gaussian, and of a likelihood that is mostly zero."""
    theta = np.random.default_rng(0).normal(size=5000)
    for log_weights in (-0.5 * (theta / 0.02) ** 2, np.where(abs(theta) < 0.02, theta, -np.inf)):
        smooth, k = pareto_smoothed(log_weights)
        np.testing.assert_array_equal(smooth, log_weights)
        assert k < 0.5
