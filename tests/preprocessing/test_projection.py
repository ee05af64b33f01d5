"""Laws of the projection that a density of many features goes through."""

import numpy as np
import pytest
from scipy import stats

from skbi.preprocessing.projection import Projection

N, D = 3000, 40


@pytest.fixture(scope="module")
def problem():
    """Noise of its own scale in each feature, and a mean that depends on one parameter."""
    rng = np.random.default_rng(0)
    w, slope = rng.normal(size=(N, 1)), rng.normal(size=(1, D))
    scale = np.exp(0.3 * rng.normal(size=D))
    return w, slope, scale, w @ slope + scale * rng.normal(size=(N, D))


@pytest.fixture(scope="module")
def projection(problem):
    w, _, _, x = problem
    return Projection.fit(w, x, np.random.default_rng(1))


def test_one_parameter_has_one_direction_and_the_size_of_the_rest(projection):
    assert projection.width == 2


def test_what_is_projected_is_standardised(problem, projection):
    y, _ = projection.forward(problem[-1])
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(y.std(axis=0), 1, atol=1e-9)


def test_the_inverse_gives_points_with_the_same_projection(problem, projection):
    y, _ = projection.forward(problem[-1][:50])
    x = projection.inverse(y, np.random.default_rng(2))
    np.testing.assert_allclose(projection.forward(x)[0], y, atol=1e-8)


def test_a_gaussian_keeps_its_density(problem, projection):
    """At a known w the direction and the rest are independent, and both densities are known."""
    _, slope, _, _ = problem
    rng, parts = np.random.default_rng(3), projection.directions
    w = rng.normal(size=(200, 1))
    x = w @ slope + parts.noise * rng.normal(size=(200, D))
    exact = stats.norm.logpdf(x, w @ slope, parts.noise).sum(axis=1)

    y, log_ratio = projection.forward(x)
    unscaled = projection.mean + projection.scale * y
    shift = (w @ slope - parts.mean) / parts.noise
    along, across = shift @ parts.axes, shift - shift @ parts.axes @ parts.axes.T
    assert np.abs(across).max() < 0.1 * np.abs(along).max()  # the axis is nearly the exact one
    m = D - 1
    size = m * np.exp(unscaled[:, 1])
    log_q = stats.norm.logpdf(unscaled[:, 0], along[:, 0])
    log_q += stats.chi2.logpdf(size, m) + np.log(size)  # of log size, by the chain rule
    log_q += np.log(projection.scale).sum()
    # what is left of the mean across the axis costs about as much as its square
    np.testing.assert_allclose(log_q + log_ratio, exact, atol=0.2 + 3 * np.abs(across).max() * 3)
    assert abs(np.mean(log_q + log_ratio - exact)) < 0.1
