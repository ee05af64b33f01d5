"""Means and standard deviations of columns are numpy's, whatever their size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi.preprocessing.scales import mean_and_sd, outlier_bounds


@given(
    seed=st.integers(0, 999),
    n=st.integers(2, 50),
    scale=st.sampled_from([1e-200, 1e-9, 1.0, 1e9, 1e200]),
    missing=st.floats(0, 0.9),
)
def test_they_are_those_of_the_entries_that_are_there(seed, n, scale, missing):
    rng = np.random.default_rng(seed)
    points = rng.normal(5, 1, size=(n, 3))
    points[rng.random(points.shape) < missing] = np.nan
    points[:2] = rng.normal(size=(2, 3))  # at least two in each column
    constant, mean, sd = mean_and_sd(scale * points)
    assert not constant.any()
    np.testing.assert_allclose(mean / scale, np.nanmean(points, axis=0))
    np.testing.assert_allclose(sd / scale, np.nanstd(points, axis=0))


@given(seed=st.integers(0, 999), shift=st.floats(-1e6, 1e6))
def test_the_distance_of_a_column_from_zero_costs_no_precision(seed, shift):
    points = np.random.default_rng(seed).normal(size=(30, 1))
    _, mean, sd = mean_and_sd(shift + points)
    np.testing.assert_allclose(mean - shift, points.mean(axis=0), atol=1e-8)
    np.testing.assert_allclose(sd, points.std(axis=0), rtol=1e-8)


def test_a_column_of_one_value_is_constant_and_one_without_values_too():
    points = np.stack([np.full(9, 0.1), np.full(9, np.nan), np.r_[np.nan, np.full(8, 3e9)]], axis=1)
    points = np.hstack([points, np.arange(9.0)[:, None], 1 + 1e-9 * np.arange(9.0)[:, None]])
    constant, mean, sd = mean_and_sd(points)
    np.testing.assert_array_equal(constant, [True, True, True, False, False])
    np.testing.assert_allclose(mean, [0.1, 0, 3e9, 4, 1])
    np.testing.assert_allclose(sd[:3], 0, atol=1e-6)
    np.testing.assert_allclose(sd[3:], np.std(np.arange(9)) * np.array([1, 1e-9]), rtol=1e-6)


def test_many_points_in_single_precision_are_added_up_in_double_precision():
    points = np.random.default_rng(0).normal(100, 1, (300_000, 1)).astype(np.float32)
    _, mean, sd = mean_and_sd(points)
    np.testing.assert_allclose(mean, points.astype(float).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(sd, points.astype(float).std(axis=0), rtol=1e-5)


@given(
    seed=st.integers(0, 99),
    n=st.sampled_from([200, 4000]),
    value=st.sampled_from([-1e300, -1e12, 1e4, 1e12]),
    share=st.sampled_from([0.0, 0.01]),
)
def test_outliers_do_not_count(seed, n, value, share):
    x = np.random.default_rng(seed).normal(5, 2, n)
    m = 1 + int(share * n)
    _, mean, sd = mean_and_sd(np.r_[np.full(m, value), x][:, None])
    np.testing.assert_allclose([mean[0], sd[0]], [x.mean(), x.std()], rtol=1e-9)


@pytest.mark.parametrize(
    "distribution",
    [
        stats.norm(), stats.uniform(), stats.expon(), stats.laplace(), stats.t(3), stats.t(2),
        stats.lognorm(5), stats.poisson(0.01), stats.beta(0.1, 0.1), stats.bernoulli(0.03),
    ],
    ids=lambda d: d.dist.name + str(d.args),
)  # fmt: skip
def test_tails_of_known_distributions_are_no_outliers(distribution):
    points = distribution.rvs(size=(10_000, 20), random_state=0).astype(float)
    low, high = outlier_bounds(points)
    assert (points >= low).all()
    assert (points <= high).all()


def test_a_few_values_tell_of_no_outliers():
    assert np.isinf(outlier_bounds(np.r_[np.arange(50.0), 1e12][:, None])).all()
