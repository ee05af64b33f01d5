"""Ranks and their bands against exact probabilities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import ecdf_band, sbc_ranks, uniformity_test
from skbi.calibration.ranks import binomial_band, pit_values, rank_grid, ranks_of_pit


@given(n_samples=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_ranks_are_counted_and_ties_broken_within_their_range(n_samples, seed):
    rng = np.random.default_rng(seed)
    theta, samples = rng.integers(4, size=(20, 2)), rng.integers(4, size=(20, n_samples, 2))
    ranks = sbc_ranks(theta, samples, random_state=seed)
    for i in range(20):
        for j in range(2):
            n_below = sum(s < theta[i, j] for s in samples[i, :, j])
            n_at_most = sum(s <= theta[i, j] for s in samples[i, :, j])
            assert n_below <= ranks[i, j] <= n_at_most


@given(n_samples=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_a_pit_value_lies_within_the_slot_of_its_rank(n_samples, seed):
    rng = np.random.default_rng(seed)
    theta, samples = rng.normal(size=(20, 2)), rng.normal(size=(20, n_samples, 2))
    pit = pit_values(theta, samples, rng)
    ranks = (samples < theta[:, None]).sum(axis=1)
    np.testing.assert_array_equal(ranks_of_pit(pit, n_samples), ranks)
    assert ((ranks / (n_samples + 1) <= pit) & (pit <= (ranks + 1) / (n_samples + 1))).all()


def test_the_uniformity_test_is_exact():
    """Its p-values, of uniform ranks, are at most p with probability p, and nearly that."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(51, size=(100, 2000))
    p_values = uniformity_test(ranks, 50)
    for a in (0.01, 0.05, 0.2, 0.5):
        found, error = (p_values <= a).mean(), math.sqrt(a * (1 - a) / 2000)
        assert a - 4 * error - 0.02 < found < a + 4 * error  # discrete: a little below


@pytest.mark.parametrize("n_samples", [1, 7, 99, 100, 1000])
def test_the_grid_of_ranks_has_the_levels_of_uniform_ranks(n_samples):
    ranks, levels = rank_grid(n_samples)
    assert len(ranks) == min(n_samples, 100)
    assert (ranks[0], ranks[-1]) == (0, n_samples - 1)
    np.testing.assert_allclose(levels, stats.randint(0, n_samples + 1).cdf(ranks))


def test_the_band_holds_the_whole_curve_with_its_confidence():
    rng = np.random.default_rng(0)
    levels = np.arange(1, 20) / 20
    lower, upper = ecdf_band(200, levels, 0.9)
    u = rng.random((4000, 200, 1))
    share = (u <= levels).mean(axis=1)
    inside = ((lower <= share) & (share <= upper)).all(axis=1).mean()
    assert 0.9 - 4 * math.sqrt(0.09 / 4000) < inside < 0.93


def test_the_band_of_a_single_level_is_binomial():
    lower, upper = ecdf_band(50, [0.3], 0.95)
    inside = stats.binom(50, 0.3).cdf(50 * upper) - stats.binom(50, 0.3).cdf(50 * lower - 1)
    assert inside[0] >= 0.95
    narrower = stats.binom(50, 0.3).cdf(50 * upper - 1) - stats.binom(50, 0.3).cdf(50 * lower)
    assert narrower[0] < 0.95


def test_the_pointwise_band_holds_a_share_with_its_confidence():
    share = np.array([0.05, 0.3, 0.5, 0.95])
    lower, upper = binomial_band(80, share, 0.9)
    inside = stats.binom(80, share).cdf(80 * upper) - stats.binom(80, share).cdf(80 * lower - 1)
    assert (inside >= 0.9).all()
    assert (inside < 0.99).all()


def test_bad_requests_say_what_was_expected():
    with pytest.raises(ValueError, match=r"such as 0\.95; got 95"):
        ecdf_band(10, [0.5], 95)
    with pytest.raises(ValueError, match="levels must increase"):
        ecdf_band(10, [0.5, 0.2])
    for ranks in ([1, 2], np.empty((0, 1)), [[7]], [[-1]]):
        with pytest.raises(ValueError, match=r"ranks must have shape .* 0 \.\.\. 5"):
            uniformity_test(ranks, 5)
    with pytest.raises(ValueError, match=r"\(2, n_samples, 1\); got \(2, 3\)"):
        sbc_ranks([[0.0], [1.0]], np.zeros((2, 3)))
