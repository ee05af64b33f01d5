"""The regression that training starts from: its line, and its errors at new points."""

import numpy as np
import pytest

from skbi.training.start import regress


def test_regression_finds_the_line_and_whitens_its_residuals():
    rng = np.random.default_rng(0)
    x, slopes, spread = rng.normal(size=(5000, 3)), rng.normal(size=(3, 2)), [[0.5, 0.3], [0, 0.2]]
    y = 5 + x @ slopes + rng.normal(size=(5000, 2)) @ spread
    found, intercept, root = regress(x, y)
    np.testing.assert_allclose(found, slopes, atol=0.03)
    np.testing.assert_allclose(intercept, 5, atol=0.03)
    np.testing.assert_array_equal(root, np.triu(root))
    covariance = np.cov((y - x @ found - intercept) @ root, rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(2), atol=0.02)


@pytest.mark.parametrize("n_features", [3, 80, 150, 400])
def test_regression_estimates_its_errors_at_new_points(n_features):
    rng, variances = np.random.default_rng(0), []
    for _ in range(20):
        x, slopes = rng.normal(size=(1200, n_features)), rng.normal(size=(n_features, 2))
        y = x @ slopes + rng.normal(size=(1200, 2))
        found, intercept, root = regress(x[:200], y[:200])
        errors = (y - x @ found - intercept) @ root
        variances.append(errors[200:].var(axis=0))
    np.testing.assert_allclose(np.mean(variances, axis=0), 1, atol=0.15)
