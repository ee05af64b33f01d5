"""Laws of the functions of features whose noise hardly depends on theta."""

import numpy as np

from skbi.preprocessing.features import FeatureMap
from skbi.preprocessing.packed import Packed
from skbi.preprocessing.stabiliser import Stabiliser


def candidates(X, *, mask=False):
    """Return the feature map of points, and what can be tried."""
    features = FeatureMap.fit(Packed(X), mask, asinh=True)
    return features, Stabiliser.candidates(features, X)


def test_roots_are_for_what_is_never_negative():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=500), rng.poisson(9, 500), rng.uniform(1, 2, 500)])
    features, found = candidates(X)
    assert [candidate.roots.tolist() for candidate in found][-1] == [False, True, True]
    assert found[-1].offset.tolist() == [3 / 8, 0]
    x = found[-1](features, X)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-9)
    np.testing.assert_array_equal(x[:, 0], found[0](features, X)[:, 0])


def test_roots_of_counts_have_the_same_variance_for_every_mean():
    rng = np.random.default_rng(0)
    X = rng.poisson(np.repeat([4.0, 16.0, 64.0], 4000))[:, None].astype(float)
    features, found = candidates(X)
    variances = [found[i](features, X).reshape(3, 4000).var(axis=1) for i in (0, -1)]
    assert variances[0].max() > 10 * variances[0].min()
    assert variances[1].max() < 1.15 * variances[1].min()


def test_gaps_become_zero_and_negative_values_the_root_of_zero():
    X = np.array([[1.0, 4.0], [np.nan, 9.0], [4.0, np.nan], [9.0, 1.0]])
    features, found = candidates(X, mask=True)
    x = found[-1](features, X)
    assert x[1, 0] == 0
    assert x[2, 1] == 0
    np.testing.assert_array_equal(
        found[-1](features, np.array([[-5.0, 0.0]])), found[-1](features, np.zeros((1, 2)))
    )
