"""Parts of a run: how far a temperature may go, the bridge, and what families tell."""

import math

import numpy as np
import pytest
from scipy import stats

from skbi.samplers.particles import _bridge, _effective_sample_size, _largest_step


def test_a_temperature_goes_as_far_as_the_weights_allow():
    difference = np.random.default_rng(0).normal(size=5000) * 30
    step = _largest_step(difference, 1.0, 2500)
    weights = np.exp(step * (difference - difference.max()))
    assert weights.sum() ** 2 / (weights**2).sum() == pytest.approx(2500, rel=1e-3)
    assert _largest_step(difference / 1000, 0.7, 2500) == 0.7


@pytest.mark.parametrize("guess", [-30.0, 0.0, 30.0])
def test_a_bridge_between_gaussians_finds_the_ratio_of_their_constants(guess):
    """Of exp(5 - x^2 / 2), by draws of N(0, 1) and of N(0.3, 1.2^2)."""
    rng, exact = np.random.default_rng(0), 5 + 0.5 * math.log(2 * math.pi)
    q, found = stats.norm(0.3, 1.2), []
    for _ in range(50):
        x, y = rng.normal(size=400), q.rvs(300, random_state=rng)
        found.append(_bridge(*(5 - 0.5 * z**2 - q.logpdf(z) for z in (x, y)), guess))
    estimates, errors = np.transpose(found)
    assert abs(estimates.mean() - exact) < 5 * errors.mean() / 50**0.5
    assert 0.7 < estimates.std() / errors.mean() < 1.4


def test_without_overlap_there_is_no_bridge():
    assert _bridge(np.zeros(5), np.full(5, -np.inf), 2.0) == (2.0, math.inf)


def test_the_effective_sample_size_counts_families():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(4000, 2))
    independent = _effective_sample_size(theta, np.arange(4000))
    np.testing.assert_allclose(independent, 4000, rtol=1e-9)
    family = np.repeat(np.arange(200), 20)
    alike = np.repeat(rng.normal(size=(200, 2)), 20, axis=0)  # members never moved apart
    assert (_effective_sample_size(alike, family) < 300).all()
    assert (_effective_sample_size(theta, family) > 2500).all()  # they have forgotten each other
