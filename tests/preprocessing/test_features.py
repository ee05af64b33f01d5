"""X -> x: standardised columns, heavy tails, masks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.packed import Packed


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-200, 1e-9, 1.0, 1e9, 1e200]))
def test_features_are_standardised_column_by_column(seed, scale):
    points = 5 * scale + scale * np.random.default_rng(seed).normal(size=(30, 3))
    x = FeatureMap.fit(Packed(points), mask=False).forward(points)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), 1)


TAILS = {
    "above": lambda normal: np.exp(4 * normal),
    "below": lambda normal: -np.exp(4 * normal),
    "both": lambda normal: np.sinh(4 * normal),
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@given(
    seed=st.integers(0, 999), scale=st.sampled_from([1e-100, 1.0, 1e100]), shift=st.floats(-9, 9)
)
def test_heavy_tailed_columns_are_given_a_second_time_in_any_units(tail, seed, scale, shift):
    points = tail(np.random.default_rng(seed).normal(size=(500, 1)))
    mapping = FeatureMap.fit(Packed(points), mask=False, asinh=True)
    x = mapping.forward(points)
    assert x.shape == (500, mapping.width) == (500, 2)
    assert mapping.n_features == 1
    np.testing.assert_array_equal(
        x[:, :1], FeatureMap.fit(Packed(points), mask=False).forward(points)
    )
    assert stats.probplot(x[:, 1])[1][2] > 0.95
    np.testing.assert_array_equal(np.argsort(x[:, 1]), np.argsort(points[:, 0]))
    other = scale * (points + shift)
    x_other = FeatureMap.fit(Packed(other), mask=False, asinh=True).forward(other)
    np.testing.assert_allclose(x_other, x, atol=1e-4)


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-100, 1.0, 1e100]))
def test_logarithms_of_positive_heavy_tails_have_their_inverse_and_volume(seed, scale):
    normal = np.random.default_rng(seed).normal(size=(500, 3))
    points = np.stack(
        [scale * np.exp(4 * normal[:, 0]), -TAILS["above"](normal[:, 1]), normal[:, 2]], 1
    )
    mapping = FeatureMap.fit(Packed(points), mask=False, log=True)
    np.testing.assert_array_equal(mapping.log_columns, [True, False, False])
    x = mapping.forward(points)
    assert x.shape == (500, mapping.width) == (500, 3)
    assert stats.probplot(x[:, 0])[1][2] > 0.98
    np.testing.assert_allclose(mapping.inverse(x)[:, 0], points[:, 0])
    np.testing.assert_allclose(mapping.inverse(x)[:, 1:], points[:, 1:], atol=1e-9)
    step = 1e-6
    slopes = (mapping.inverse(x + step) - mapping.inverse(x - step)) / (2 * step)
    constant, slope = mapping.volume()
    np.testing.assert_allclose(constant + x @ slope, np.log(slopes).sum(axis=1), atol=1e-5)
    below = np.array([[-1.0, 0, 0], [scale, 0, 0]])
    np.testing.assert_array_equal(mapping.possible(below), [False, True])
    assert mapping.forward(below)[0, 0] == x[:, 0].min()


@given(seed=st.integers(0, 999), width=st.sampled_from([0.1, 1.0, 50.0]))
def test_counts_over_decades_become_logarithms_and_noise_is_added_to_the_counts(seed, width):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.exp(rng.normal(0, 3, size=(500, 2))))
    points = width * np.column_stack([counts[:, 0], rng.binomial(40, 0.5, 500)])
    mapping = FeatureMap.fit(Packed(points), mask=False, log=True, noise_width=width)
    np.testing.assert_array_equal(mapping.log_columns, [True, False])
    x, noise = mapping.forward(points), rng.uniform(-0.5, 0.5, points.shape)
    np.testing.assert_allclose(mapping.inverse(x), points, atol=1e-9 * points.max())
    noisy = mapping.add_noise(torch.as_tensor(x), torch.as_tensor(noise)).numpy()
    np.testing.assert_allclose(noisy, mapping.forward(points + width * noise), atol=1e-9)
    possible = mapping.possible(np.array([[-width, 1.0], [0.0, -3.0], [-2 * width, 1.0]]))
    np.testing.assert_array_equal(possible, [False, True, False])


def test_a_heavy_tailed_column_may_have_missing_and_repeated_values():
    points = np.zeros((1000, 2))
    points[:20, 0], points[:50, 1] = np.arange(20), np.nan
    mapping = FeatureMap.fit(Packed(points), mask=True, asinh=True)
    x = mapping.forward(points)
    assert x.shape == (1000, mapping.width) == (1000, 5)
    np.testing.assert_allclose(x[:, :3].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x[:, [0, 2]].std(axis=0), 1)
    np.testing.assert_array_equal(x[:, 3:], np.isnan(points))


def test_a_constant_feature_becomes_zero():
    for n, dtype in [(5, float), (100_000, float), (100_000, np.float32)]:
        mapping = FeatureMap.fit(Packed(np.full((n, 1), 0.1, dtype)), mask=False)
        np.testing.assert_array_equal(mapping.scale, 1)
        np.testing.assert_allclose(mapping.forward(np.full((2, 1), 0.1, dtype)), 0, atol=1e-7)


def test_a_missing_entry_becomes_the_mean_and_a_column_marks_it():
    points = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 6.0]])
    mapping = FeatureMap.fit(Packed(points), mask=True)
    x = mapping.forward(points)
    assert x.shape == (3, mapping.width) == (3, 4)
    np.testing.assert_array_equal(x[:, 2:], np.isnan(points))
    np.testing.assert_allclose(x[:, :2], [[-1, 0], [1, -1], [0, 1]])


@pytest.mark.parametrize("mask", [False, True])
def test_every_feature_is_standardised_once_transformed_or_not(mask):
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.normal(size=500), rng.standard_cauchy(500)])
    mapping = FeatureMap.fit(Packed(points), mask=mask, asinh=True)
    x = mapping.forward(points)
    plain = mapping.standardised(points, asinh=False)
    np.testing.assert_array_equal(plain, x[:, :2])
    transformed = mapping.standardised(points, asinh=True)
    np.testing.assert_array_equal(transformed, x[:, [0, 2]])
    if mask:
        points[:9, 1] = np.nan
        for asinh in (False, True):
            assert (mapping.standardised(points, asinh=asinh)[:9, 1] == 0).all()
