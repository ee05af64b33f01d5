"""Residuals of the regression: there and back, and standard normal where it is right."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi.estimators.residuals import TransportMember
from skbi.networks import DeepSet
from skbi.networks.vector_fields import VectorField
from skbi.preprocessing.batches import Batch
from skbi.training.start import regress


def member(p, d, regression=None):
    found = TransportMember(None, VectorField(p, d, (4,)), d, d)
    if regression is not None:
        found.start_at(regression)
    return found.double()


def pairs(seed, p, d, n=400):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, p)) @ rng.normal(size=(p, p)) + 1
    return z, z @ rng.normal(size=(p, d)) / p + 0.5 * rng.normal(size=(n, d))


@given(seed=st.integers(0, 1000), p=st.integers(1, 4), d=st.integers(1, 4))
def test_residuals_are_a_map_with_a_known_determinant(seed, p, d):
    z, x = pairs(seed, p, d)
    regression = regress(x, z)
    slopes, intercept, root = regression
    reading = member(p, d, regression)
    context = reading.embed_observations(Batch(torch.as_tensor(x)))
    assert context.shape == (400, reading.n_context)
    w = reading.to_residuals(torch.as_tensor(z), context)
    back = reading.from_residuals(w, context)
    np.testing.assert_allclose(back, z, atol=1e-5)
    near = np.abs(x).max(axis=1) < 3  # where features are not clipped
    covariance = np.linalg.inv(root @ root.T)
    expected = stats.multivariate_normal(np.zeros(p), covariance).logpdf(z - x @ slopes - intercept)
    found = stats.norm.logpdf(w).sum(axis=1) + reading.log_volume.item()
    np.testing.assert_allclose(found[near], np.atleast_1d(expected)[near], atol=2e-2, rtol=1e-2)


def test_residuals_of_a_linear_problem_are_standard_normal():
    z, x = pairs(0, 3, 3, n=5000)
    reading = member(3, 3, regress(x, z))
    context = reading.embed_observations(Batch(torch.as_tensor(x)))
    w = reading.to_residuals(torch.as_tensor(z), context).numpy()
    np.testing.assert_allclose(w.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(w.T), np.eye(3), atol=0.1)


def test_before_a_regression_is_set_residuals_are_the_parameters():
    reading = member(2, 3)
    z = torch.randn(5, 2, dtype=torch.float64)
    context = reading.embed_observations(Batch(torch.randn(5, 3, dtype=torch.float64)))
    torch.testing.assert_close(reading.to_residuals(z, context), z)
    torch.testing.assert_close(reading.from_residuals(z, context), z)


@pytest.mark.parametrize("summary", [DeepSet(2, 4), torch.nn.Linear(2, 4)])
def test_shrinkage_is_of_networks_of_our_own(summary):
    n_own = len(summary.shrunk()) if isinstance(summary, DeepSet) else 0
    reading = TransportMember(summary, VectorField(2, 4, (4,)), 4, 12)
    assert len(reading.shrunk()) == n_own + len(reading.field.shrunk())
