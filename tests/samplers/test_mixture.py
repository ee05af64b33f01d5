"""The mixture that proposals are drawn from: a density, its draws, and its steps."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp

from skbi.samplers.mixture import StudentMixture


def two_modes(n, k=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) * 0.3 + np.where(rng.random((n, 1)) < 0.3, -4, 4)


def test_the_density_integrates_to_one():
    mixture = StudentMixture(two_modes(500, 1), np.random.default_rng(0))
    grid = np.linspace(-200, 200, 400_001)
    assert integrate.trapezoid(np.exp(mixture.log_prob(grid[:, None])), grid) == pytest.approx(
        1, abs=1e-4
    )


def test_in_two_dimensions_too_by_importance():
    mixture = StudentMixture(two_modes(500), np.random.default_rng(0))
    wide = stats.multivariate_t(np.zeros(2), 25 * np.eye(2), df=3, seed=1)
    points = wide.rvs(200_000)
    weights = np.exp(mixture.log_prob(points) - wide.logpdf(points))
    assert abs(weights.mean() - 1) < 5 * weights.std() / len(weights) ** 0.5


def test_draws_have_the_density():
    mixture = StudentMixture(two_modes(500, 1), np.random.default_rng(0))
    draws = mixture.sample(4000, np.random.default_rng(1))[:, 0]
    grid = np.linspace(-60, 60, 20_001)
    density = np.exp(mixture.log_prob(grid[:, None]))
    distribution = integrate.cumulative_trapezoid(density, grid, initial=0)
    assert stats.kstest(draws, lambda x: np.interp(x, grid, distribution)).pvalue > 1e-3


def test_modes_have_their_shares_of_the_points():
    points = two_modes(2000)
    mixture = StudentMixture(points, np.random.default_rng(0))
    drawn = mixture.sample(4000, np.random.default_rng(1))
    share = (points[:, 0] < 0).mean()
    assert abs((drawn[:, 0] < 0).mean() - share) < 5 * (share * (1 - share) / 4000) ** 0.5 + 0.01


def test_a_step_has_the_ratio_of_its_densities():
    """q(z' | z) = sum_c share_c(z) N(z' - z; 0, s^2 S_c), written out."""
    mixture = StudentMixture(two_modes(500), np.random.default_rng(0))
    z = two_modes(50, seed=1)
    new, ratio = mixture.step(z, 0.7, np.random.default_rng(2))
    roots = [mixture.root @ root for root in mixture._roots]

    def log_q(to, start):
        whitened = np.linalg.solve(mixture.root, (start - mixture.mean).T).T
        nu, kernels, shares = 8.0, [], []
        for weight, centre, root, full in zip(
            mixture.weights, mixture.centres, mixture._roots, roots, strict=True
        ):
            t = stats.multivariate_t(centre, root @ root.T, df=nu)
            shares.append(np.log(weight) + t.logpdf(whitened))
            normal = stats.multivariate_normal(np.zeros(2), 0.7**2 * full @ full.T)
            kernels.append(normal.logpdf(to - start))
        shares = np.array(shares) - logsumexp(shares, axis=0)
        return logsumexp(shares + np.array(kernels), axis=0)

    np.testing.assert_allclose(ratio, log_q(z, new) - log_q(new, z), atol=1e-8)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 3), (40, 10)])
def test_few_points_are_enough(n, k):
    points = np.random.default_rng(0).normal(size=(n, k))
    mixture = StudentMixture(points, np.random.default_rng(0))
    draws = mixture.sample(100, np.random.default_rng(1))
    assert np.isfinite(draws).all()
    assert np.isfinite(mixture.log_prob(draws)).all()


def test_points_that_are_equal_in_a_coordinate_warn_of_nothing():
    points = np.random.default_rng(0).normal(size=(200, 3))
    points[:, 1] = 0.7
    mixture = StudentMixture(points, np.random.default_rng(0))
    draws = mixture.sample(100, np.random.default_rng(1))
    assert np.isfinite(mixture.log_prob(draws)).all()
    np.testing.assert_allclose(draws[:, 1], 0.7, atol=1e-10)
