"""The maps between the user's units and the networks': inverses, determinants, tails."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi import JointPrior, maps
from skbi._data import Packed, pack
from skbi.maps import FeatureMap, ParameterMap

PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})


@pytest.mark.parametrize("prior", [PRIOR, None], ids=["prior", "no prior"])
@given(seed=st.integers(0, 999), straight=st.booleans())
def test_the_parameter_map_is_invertible_and_knows_its_determinant(prior, seed, straight):
    theta = 0.9 * PRIOR.sample(50, random_state=seed)
    mapping = ParameterMap.fit(prior, theta, straight=straight)
    z, log_det = mapping.forward(theta)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=0), 1)
    np.testing.assert_allclose(mapping.inverse(z), theta, atol=1e-8)
    step = 1e-6
    slopes = [mapping.forward(theta + step * e)[0] - mapping.forward(theta - step * e)[0]
              for e in np.eye(2)]  # fmt: skip
    jacobian = np.stack(slopes, axis=-1) / (2 * step)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-3)


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
def test_heavy_tails_are_given_once_more_as_normal_ones_in_any_units(tail, seed, scale, shift):
    points = tail(np.random.default_rng(seed).normal(size=(500, 1)))
    mapping = FeatureMap.fit(Packed(points), mask=False, bend=True)
    x = mapping.forward(points)
    assert x.shape == (500, mapping.width) == (500, 2)
    assert mapping.n_features == 1
    np.testing.assert_array_equal(
        x[:, :1], FeatureMap.fit(Packed(points), mask=False).forward(points)
    )
    assert stats.probplot(x[:, 1])[1][2] > 0.95
    np.testing.assert_array_equal(np.argsort(x[:, 1]), np.argsort(points[:, 0]))
    other = scale * (points + shift)
    x_other = FeatureMap.fit(Packed(other), mask=False, bend=True).forward(other)
    np.testing.assert_allclose(x_other, x, atol=1e-4)


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-100, 1.0, 1e100]))
def test_logarithms_of_positive_heavy_tails_are_invertible_and_know_their_volume(seed, scale):
    normal = np.random.default_rng(seed).normal(size=(500, 3))
    points = np.stack(
        [scale * np.exp(4 * normal[:, 0]), -TAILS["above"](normal[:, 1]), normal[:, 2]], 1
    )
    mapping = FeatureMap.fit(Packed(points), mask=False, log=True)
    np.testing.assert_array_equal(mapping.logged, [True, False, False])
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


@given(
    seed=st.integers(0, 999),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    scale=st.sampled_from([1e-200, 1.0, 1e200]),
)
def test_points_are_standardised_set_by_set(seed, sizes, scale):
    rng = np.random.default_rng(seed)
    X = [scale * (rng.normal() + rng.normal(size=(size, 2))) for size in sizes]
    for x in X:
        x[rng.random(len(x)) < 0.2, 1] = np.nan
    found = maps._standardised_by_set(pack(X, missing="mask"))
    for x, z in zip(X, np.split(found, np.cumsum(sizes)[:-1]), strict=True):
        for column, of_column in zip(x.T / scale, z.T, strict=True):
            there = ~np.isnan(column)
            known = there & (there.sum() > 1)
            np.testing.assert_array_equal(np.isnan(of_column), ~known)
            if known.any():
                expected = column[there] - column[there].mean()
                expected /= column[there].std()
                np.testing.assert_allclose(of_column[there], expected, atol=1e-6)


@given(seed=st.integers(0, 999))
def test_tails_of_sets_are_heavy_within_them(seed):
    rng = np.random.default_rng(seed)
    scale = np.exp(3 * rng.normal(size=(100, 1, 1)))  # known of each set
    X = np.concatenate(
        [scale * rng.normal(size=(100, 50, 1)), rng.standard_cauchy((100, 50, 1))], 2
    )
    mapping = FeatureMap.fit(pack(X), mask=False, bend=True)
    np.testing.assert_array_equal(mapping.bent, [1])


@given(seed=st.integers(0, 999))
def test_columns_without_heavy_tails_are_given_once(seed):
    rng = np.random.default_rng(seed)
    normal, flat = rng.normal(size=1000), rng.uniform(size=1000)
    two = rng.choice([-5, 5], 1000) + rng.normal(size=1000)
    points = np.stack([normal, flat, two, np.ones(1000), rng.integers(2, size=1000)], axis=1)
    x = FeatureMap.fit(Packed(points), mask=False, bend=True).forward(points)
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
    for options in ({"bend": True}, {"log": True}):
        x = FeatureMap.fit(X, mask=False, **options).forward(points)
        assert np.isfinite(x).all()
        assert np.abs(x).max() > 0


def test_the_bulk_is_seen_beside_outliers_of_any_size():
    rng = np.random.default_rng(0)
    points = np.r_[rng.normal(size=1000), [-1e18, 1e18] * 10][:, None]
    mapping = FeatureMap.fit(Packed(points), mask=False, bend=True)
    assert mapping.forward(points)[:1000, 1].std() > 0.1


def test_one_point_of_a_set_tells_nothing_of_its_tails():
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(30 if i % 10 == 0 else 1, 1)) for i in range(1000)]
    assert len(FeatureMap.fit(pack(X), mask=False, bend=True).bent) == 0


def test_a_column_that_is_positive_by_chance_stays_as_it_is():
    rng = np.random.default_rng(0)
    points = 10 + np.exp(rng.uniform(-2.3, 1.0, (1000, 1))) * rng.normal(size=(1000, 1))
    points = points[points[:, 0] > 0]
    assert maps._are_heavy(points).all()
    assert not FeatureMap.fit(Packed(points), mask=False, log=True).logged.any()


def test_a_heavy_tail_may_have_gaps_and_ties():
    points = np.zeros((1000, 2))
    points[:20, 0], points[:50, 1] = np.arange(20), np.nan
    mapping = FeatureMap.fit(Packed(points), mask=True, bend=True)
    x = mapping.forward(points)
    assert x.shape == (1000, mapping.width) == (1000, 5)
    np.testing.assert_allclose(x[:, :3].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x[:, [0, 2]].std(axis=0), 1)
    np.testing.assert_array_equal(x[:, 3:], np.isnan(points))


@given(seed=st.integers(0, 999), straight=st.booleans(), n_on_bound=st.integers(1, 5))
def test_theta_on_a_bound_counts_as_the_outermost_draws(seed, straight, n_on_bound):
    theta = PRIOR.sample(200, random_state=seed)
    theta[:n_on_bound] = [[1.0, 0.0]]
    mapping = ParameterMap.fit(PRIOR, theta, straight=straight)
    z, log_det = mapping.forward(theta)
    assert np.abs(z).max() < 10
    assert np.abs(log_det).max() < 20
    beside = mapping.forward(np.array([[0.995, 0.003]]))
    np.testing.assert_allclose(z[0], beside[0][0], atol=0.5)


def test_a_constant_feature_becomes_zero():
    for n, dtype in [(5, float), (100_000, float), (100_000, np.float32)]:
        mapping = FeatureMap.fit(Packed(np.full((n, 1), 0.1, dtype)), mask=False)
        np.testing.assert_array_equal(mapping.scale, 1)
        np.testing.assert_allclose(mapping.forward(np.full((2, 1), 0.1, dtype)), 0, atol=1e-7)


def test_a_masked_feature_becomes_its_mean_and_a_column_says_so():
    points = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 6.0]])
    mapping = FeatureMap.fit(Packed(points), mask=True)
    x = mapping.forward(points)
    assert x.shape == (3, mapping.width) == (3, 4)
    np.testing.assert_array_equal(x[:, 2:], np.isnan(points))
    np.testing.assert_allclose(x[:, :2], [[-1, 0], [1, -1], [0, 1]])
