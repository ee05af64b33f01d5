"""Members of a ratio: where they start, and log ratios of all forms of data."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior, NREEstimator
from skbi.estimators.ratios import GaussianRatio, as_rows
from skbi.preprocessing.packed import Packed, pack
from skbi.priors import to_normal
from skbi.training.start import regress

QUICK = {"max_iter": 1, "learning_rate_init": 1e-9, "random_state": 0}


@given(seed=st.integers(0, 1000), p=st.integers(1, 3), d=st.integers(1, 4))
def test_a_gaussian_ratio_is_that_of_the_two_densities(seed, p, d):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(200, p)) @ rng.normal(size=(p, p)) + 1
    x = w @ rng.normal(size=(p, d)) + 0.5 * rng.normal(size=(200, d))
    regression = regress(x, w)
    slopes, intercept, root = regression
    ratio = GaussianRatio(p, d).double()
    ratio.set(w, regression)
    tensors = torch.as_tensor(w), torch.as_tensor(x)
    posterior = stats.multivariate_normal(np.zeros(p), np.linalg.inv(root @ root.T))
    covariance = np.cov(w, rowvar=False) + 1e-6 * np.eye(p)  # with what keeps it regular
    prior = stats.multivariate_normal(w.mean(axis=0), covariance)
    expected = posterior.logpdf(w - x @ slopes - intercept) - prior.logpdf(w)
    np.testing.assert_allclose(gaussian(ratio, *tensors), expected, atol=1e-6)


def gaussian(ratio, w, x):
    """Return the Gaussian ratio of pairs (n,)."""
    _, log_prob = ratio.residuals(w[:, None], ratio.frames(x))
    return (log_prob - ratio.log_prior(w))[:, 0]


def test_before_it_is_set_it_is_zero():
    ratio = GaussianRatio(2, 3)
    found = gaussian(ratio, torch.randn(5, 2), torch.randn(5, 3))
    torch.testing.assert_close(found, torch.zeros(5))


def linear_gaussian(n, form, seed=0):
    """Pairs of two parameters, and their exact log ratio."""
    prior = JointPrior({"a": stats.norm(), "b": stats.norm(1, 2)})
    theta, rng = prior.sample(n, random_state=seed), np.random.default_rng([seed, 1])
    size = 1 if form == "vectors" else 5
    X = theta[:, None] + 0.5 * rng.normal(size=(n, size, 2))
    mean, sd, noise = X.mean(axis=1), np.array([1.0, 2.0]), 0.5 / np.sqrt(size)
    evidence = stats.norm([0, 1], np.hypot(sd, noise))
    exact = (stats.norm(theta, noise).logpdf(mean) - evidence.logpdf(mean)).sum(axis=1)
    return prior, theta, X[:, 0] if form == "vectors" else X, exact


@pytest.mark.parametrize("form", ["vectors", "sets"])
def test_a_linear_gaussian_ratio_is_nearly_exact_where_it_starts(form):
    """The regression of sets reads more than their means."""
    prior, theta, X, exact = linear_gaussian(5000, form)
    nre = NREEstimator(prior=prior, **QUICK).fit(theta, X)
    error = np.abs(nre.log_prob(theta, X) - exact)
    assert error.mean() < 0.1  # variances are known to 2 %, of quadratic forms of about 4 in all


def test_beyond_the_training_parameters_the_critic_reads_their_range():
    prior, theta, X, _ = linear_gaussian(200, "vectors")
    nre = NREEstimator(prior=prior, max_iter=2, random_state=0).fit(theta, X)
    (member, *_), far = nre.members_, torch.tensor([[9.0, -9.0], [30.0, -30.0]])
    of_critic = member.embed_parameters(far)[:, : member.critic.width]
    torch.testing.assert_close(of_critic[0], of_critic[1])
    edge = torch.stack([member.high[0], member.low[1]])[None]
    torch.testing.assert_close(of_critic[:1], member.critic.of_parameters(edge))


def wide_pairs(n, seed=0):
    """Two parameters through forty features, of which a half tells of each."""
    prior = JointPrior({"a": stats.norm(), "b": stats.uniform(-2, 4)})
    theta, rng = prior.sample(n, random_state=seed), np.random.default_rng([seed, 1])
    return prior, theta, np.repeat(theta**3 + theta, 20, axis=1) + rng.normal(size=(n, 40))


def test_the_ratio_of_compressed_vectors_starts_at_the_emulators_posterior():
    prior, theta, X = wide_pairs(1000)
    nre = NREEstimator(prior=prior, early_stopping=False, **QUICK).fit(theta, X)
    z = nre._maps.theta.forward(theta)[0]
    _, frame = nre._maps.read(Packed(X))
    covariance = np.cov(z, rowvar=False)
    prior_of_z = stats.multivariate_normal(z.mean(axis=0), covariance)
    u, log_det = frame.forward(z)
    expected = stats.norm.logpdf(u).sum(axis=1) + log_det - prior_of_z.logpdf(z)
    np.testing.assert_allclose(nre.log_prob(theta, X), expected, atol=1e-3)


@pytest.mark.parametrize("d", [3, 40])
def test_ratios_of_all_are_those_of_the_pairs(d):
    prior, theta, X = wide_pairs(300)
    nre = NREEstimator(prior=prior, max_iter=2, random_state=0).fit(theta, X[:, :d])
    each = nre.log_prob(np.tile(theta[:5], (4, 1)), np.repeat(X[:4, :d], 5, axis=0))
    grid = nre.log_prob(np.broadcast_to(theta[:5], (4, 5, 2)), X[:4, :d])
    np.testing.assert_allclose(grid, each.reshape(4, 5), atol=1e-4)


def test_rows_are_observations_or_points():
    X = pack([np.zeros((2, 3)), np.ones((1, 3))])
    rows, owners = as_rows(X, by_point=True)
    assert rows.sizes is None
    assert owners.tolist() == [0, 0, 1]
    assert as_rows(X, by_point=False)[0] is X
    vectors = Packed(np.zeros((2, 3)))
    assert as_rows(vectors, by_point=True)[1].tolist() == [0, 1]


@pytest.mark.parametrize("options", [{}, {"sets": "sum"}])
def test_a_likelihood_is_the_log_ratio(options):
    prior, theta, X, _ = linear_gaussian(200, "sets")
    nre = NREEstimator(prior=prior, max_iter=2, random_state=0, **options).fit(theta, X)
    packed, _ = nre._check_observations(X[:3])
    for i, ratio in enumerate(nre._likelihoods(packed, prior)):
        np.testing.assert_allclose(
            ratio(theta), nre.log_prob(theta, X[i : i + 1]), rtol=1e-5, atol=1e-4
        )
        value, gradient = ratio.value_and_gradient(to_normal(prior, theta))
        np.testing.assert_allclose(value, ratio(theta), rtol=1e-5, atol=1e-4)
        assert gradient.shape == theta.shape
