"""Heavy tails: which columns have them, and which are transformed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbi.preprocessing import tails
from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.packed import Packed, pack


@given(
    seed=st.integers(0, 999),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    scale=st.sampled_from([1e-200, 1.0, 1e200]),
)
def test_points_are_standardised_within_their_sets(seed, sizes, scale):
    rng = np.random.default_rng(seed)
    X = [scale * (rng.normal() + rng.normal(size=(size, 2))) for size in sizes]
    for x in X:
        x[rng.random(len(x)) < 0.2, 1] = np.nan
    found = tails._standardise_within_sets(pack(X, missing="mask"))
    for x, z in zip(X, np.split(found, np.cumsum(sizes)[:-1]), strict=True):
        for column, standardised in zip(x.T / scale, z.T, strict=True):
            present = ~np.isnan(column)
            varies = present & (present.sum() > 1)
            np.testing.assert_array_equal(np.isnan(standardised), ~varies)
            if varies.any():
                expected = column[present] - column[present].mean()
                expected /= column[present].std()
                np.testing.assert_allclose(standardised[present], expected, atol=1e-6)


@given(seed=st.integers(0, 999))
def test_a_column_of_sets_is_heavy_tailed_if_it_is_within_sets(seed):
    rng = np.random.default_rng(seed)
    scale = np.exp(3 * rng.normal(size=(100, 1, 1)))  # the same for all points of a set
    X = np.concatenate(
        [scale * rng.normal(size=(100, 50, 1)), rng.standard_cauchy((100, 50, 1))], 2
    )
    mapping = FeatureMap.fit(pack(X), mask=False, asinh=True)
    np.testing.assert_array_equal(mapping.asinh_columns, [1])


@given(seed=st.integers(0, 999))
def test_columns_without_heavy_tails_are_not_given_a_second_time(seed):
    rng = np.random.default_rng(seed)
    normal, flat = rng.normal(size=1000), rng.uniform(size=1000)
    two = rng.choice([-5, 5], 1000) + rng.normal(size=1000)
    points = np.stack([normal, flat, two, np.ones(1000), rng.integers(2, size=1000)], axis=1)
    x = FeatureMap.fit(Packed(points), mask=False, asinh=True).forward(points)
    np.testing.assert_array_equal(x, FeatureMap.fit(Packed(points), mask=False).forward(points))


@pytest.mark.parametrize(
    "column",
    [
        np.r_[1.0, np.zeros(99_999)],  # one mark in a hundred sets of a thousand points
        np.tile(np.r_[1.0, np.zeros(9)], 10_000),  # an indicator
        np.repeat(np.random.default_rng(0).uniform(size=100), 1000),  # the same within a set
        np.exp(np.random.default_rng(0).normal(0, 150, 100_000).clip(-690, 690)),
        np.r_[np.random.default_rng(0).normal(size=99_000), [-1e18, 1e18] * 500],
    ],
    ids=["mark", "indicator", "covariate", "600 decades", "diverged"],
)
@pytest.mark.parametrize("of_sets", [False, True])
def test_odd_columns_stay_finite(column, of_sets):
    points = column[:, None]
    X = pack(points.reshape(100, 1000, 1) if of_sets else points)
    for options in ({"asinh": True}, {"log": True}):
        x = FeatureMap.fit(X, mask=False, **options).forward(points)
        assert np.isfinite(x).all()
        assert np.abs(x).max() > 0


def test_outliers_of_any_size_leave_the_other_values_apart():
    rng = np.random.default_rng(0)
    points = np.r_[rng.normal(size=1000), [-1e18, 1e18] * 10][:, None]
    mapping = FeatureMap.fit(Packed(points), mask=False, asinh=True)
    assert mapping.forward(points)[:1000, 1].std() > 0.1


def test_sets_of_one_point_do_not_count_as_heavy_tailed():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(30 if i % 10 == 0 else 1, 1)) for i in range(1000)]
    assert len(FeatureMap.fit(pack(X), mask=False, asinh=True).asinh_columns) == 0


def test_no_logarithm_is_taken_where_it_makes_a_column_less_normal():
    rng = np.random.default_rng(0)
    points = 10 + np.exp(rng.uniform(-2.3, 1.0, (1000, 1))) * rng.normal(size=(1000, 1))
    points = points[points[:, 0] > 0]
    assert tails.heavy_tailed(points).all()
    assert not FeatureMap.fit(Packed(points), mask=False, log=True).log_columns.any()
