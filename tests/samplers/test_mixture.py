"""The mixture is a density, its draws follow it, and its steps are reversible."""

import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from skbi.samplers.mixture import StudentMixture


def two_modes(n, k, seed=0):
    """Draw points around 0 and around 6, with scales 1 and 0.1, and correlated."""
    rng = np.random.default_rng(seed)
    far = rng.random((n, 1)) < 0.3
    z = rng.normal(size=(n, k))
    z[:, 1:] += z[:, :1]
    return np.where(far, 6 + 0.1 * z, z)


def fit(n, k, seed=0):
    """Fit a mixture to two modes."""
    return StudentMixture(two_modes(n, k, seed), np.random.default_rng(seed))


def components(mixture):
    """Return the mixture's weights, centres and covariances, not whitened."""
    roots = mixture.root @ mixture._roots
    return mixture.weights, mixture.mean + mixture.centres @ mixture.root.T, roots @ roots.mT


@pytest.mark.parametrize("n", [7, 60, 2000])
def test_the_density_integrates_to_one_in_one_dimension(n):
    mixture = fit(n, 1)
    points = two_modes(n, 1)[:, 0]
    middle, scale = points.mean(), points.std()
    u = np.linspace(-12, 12, 400_001)  # z = middle + scale sinh(u) reaches far into the tails
    density = np.exp(mixture.log_prob((middle + scale * np.sinh(u))[:, None]))
    assert np.trapezoid(density * scale * np.cosh(u), u) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("n", "k"), [(30, 2), (2000, 2), (2000, 5)])
def test_the_density_integrates_to_one_in_more(n, k):
    """By importance sampling from a Cauchy-like density with heavier tails."""
    mixture, rng = fit(n, k), np.random.default_rng(1)
    weights, centres, covariances = components(mixture)
    n_draws = 100_000
    component = rng.choice(len(weights), size=n_draws, p=weights)
    proposals = [
        stats.multivariate_t(m, c, df=3, seed=rng)
        for m, c in zip(centres, covariances, strict=True)
    ]
    z = np.empty((n_draws, k))
    for i, proposal in enumerate(proposals):
        z[component == i] = proposal.rvs((component == i).sum()).reshape(-1, k)
    log_q = np.stack([proposal.logpdf(z) for proposal in proposals])
    log_q = logsumexp(log_q + np.log(weights)[:, None], axis=0)
    ratio = np.exp(mixture.log_prob(z) - log_q)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(n_draws)
    assert ratio.std() < 3


@pytest.mark.parametrize("k", [1, 3])
def test_the_density_is_that_of_its_components(k):
    mixture, z = fit(1000, k), two_modes(50, k, seed=1)
    terms = [
        np.log(w) + stats.multivariate_t(m, c, df=8).logpdf(z)
        for w, m, c in zip(*components(mixture), strict=True)
    ]
    np.testing.assert_allclose(mixture.log_prob(z), logsumexp(terms, axis=0), rtol=1e-8)


def test_draws_follow_the_density():
    mixture = fit(1000, 1)
    draws = mixture.sample(5000, np.random.default_rng(1))[:, 0]
    grid = np.linspace(-60, 60, 400_001)
    cdf = np.exp(mixture.log_prob(grid[:, None])).cumsum() * (grid[1] - grid[0])
    assert stats.kstest(np.interp(draws, grid, cdf), "uniform").pvalue > 1e-3


def test_draws_in_more_dimensions_have_the_moments_of_the_mixture():
    mixture = fit(2000, 3)
    draws = mixture.sample(40_000, np.random.default_rng(1))
    weights, centres, covariances = components(mixture)
    mean = weights @ centres
    off = centres - mean
    within = 8 / 6 * np.einsum("c,cij->ij", weights, covariances)  # of t with 8 degrees of freedom
    covariance = within + np.einsum("c,ci,cj->ij", weights, off, off)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * sd / np.sqrt(len(draws))).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05 * sd.max() ** 2)


def test_modes_have_their_shares_of_the_points():
    points, n = two_modes(2000, 2), 4000
    draws = StudentMixture(points, np.random.default_rng(0)).sample(n, np.random.default_rng(1))
    share, drawn = (points[:, 0] > 5).mean(), (draws[:, 0] > 5).mean()
    assert abs(drawn - share) < 4 * (share * (1 - share) / n) ** 0.5 + 0.02


def test_the_mixture_is_near_the_points_density():
    """Two modes of unequal scale: the mean log density is that of the points, less 0.1 nats."""
    mixture, z = fit(2000, 2), two_modes(2000, 2, seed=1)
    covariance = np.array([[1.0, 1.0], [1.0, 2.0]])
    near = stats.multivariate_normal([0, 0], covariance).logpdf(z)
    far = stats.multivariate_normal([6, 6], 0.01 * covariance).logpdf(z)
    exact = np.logaddexp(np.log(0.7) + near, np.log(0.3) + far)
    assert 0 < (exact - mixture.log_prob(z)).mean() < 0.1


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize(("n", "k"), [(30, 1), (1000, 3)])
def test_the_ratio_of_a_step_is_the_explicit_formula(n, k, scale):
    """q(z' | z) = sum_c share_c(z) N(z'; z, scale^2 S_c)."""
    mixture, z = fit(n, k), two_modes(40, k, seed=1)
    new, ratio = mixture.step(z, scale, np.random.default_rng(1))
    weights, centres, covariances = components(mixture)

    def log_q(start, end):
        density = np.stack(
            [
                np.log(w) + stats.multivariate_t(m, c, df=8).logpdf(start)
                for w, m, c in zip(weights, centres, covariances, strict=True)
            ]
        ).reshape(len(weights), -1)
        log_share = density - logsumexp(density, axis=0)
        steps = np.stack(
            [
                stats.multivariate_normal(np.zeros(k), scale**2 * c).logpdf(end - start)
                for c in covariances
            ]
        ).reshape(len(weights), -1)
        return logsumexp(log_share + steps, axis=0)

    assert len(weights) == max(1, min(16, n // (20 * k)))
    np.testing.assert_allclose(ratio, log_q(new, z) - log_q(z, new), atol=1e-6)


def test_steps_follow_the_components_that_a_point_may_belong_to():
    mixture, rng, n = fit(2000, 2), np.random.default_rng(1), 20_000
    weights, centres, covariances = components(mixture)
    for start in ([0.0, 0.0], [6.0, 6.0], [3.0, 3.0]):
        steps = mixture.step(np.tile(start, (n, 1)), 2.0, rng)[0] - start
        pairs = zip(centres, covariances, strict=True)
        share = weights * [stats.multivariate_t(m, c, df=8).pdf(start) for m, c in pairs]
        exact = 4 * np.einsum("c,cij->ij", share / share.sum(), covariances)
        sd = np.sqrt(np.diag(exact))
        products = (steps / sd)[:, :, None] * (steps / sd)[:, None, :]
        gap = products.mean(axis=0) - exact / np.outer(sd, sd)
        assert (np.abs(gap) < 4 * products.std(axis=0) / np.sqrt(n)).all()


@pytest.mark.parametrize(
    "points",
    [
        two_modes(3, 8),  # fewer points than dimensions
        two_modes(40, 10),  # than 20 for each
        two_modes(2, 1),
        np.zeros((100, 2)),
        np.ones((100, 3)) * [1.0, 0.0, 5.0] + two_modes(100, 1) * [0.0, 1.0, 0.0],
        np.repeat(two_modes(1, 2), 50, axis=0),
        two_modes(200, 2)[:, [0, 0]],  # two coordinates that are the same
        np.round(two_modes(200, 2)),
        1e-9 * two_modes(400, 2) + 3,
    ],
    ids=["few", "some", "two", "zero", "constant", "one", "repeated", "rounded", "narrow"],
)
def test_points_that_span_no_space_have_a_density_all_the_same(points):
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture = StudentMixture(points, rng)
        draws = mixture.sample(100, rng)
        new, ratio = mixture.step(draws, 1.0, rng)
        assert np.isfinite(mixture.log_prob(points)).all()
        assert np.isfinite(mixture.log_prob(draws)).all()
    assert np.isfinite(new).all()
    assert np.isfinite(ratio).all()
    np.testing.assert_allclose(draws.mean(axis=0), points.mean(axis=0), atol=points.std() + 1e-6)
