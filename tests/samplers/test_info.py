"""Diagnostics of chains against processes whose values are known."""

import math

import numpy as np
import pytest

from skbi.samplers.info import effective_sample_size, r_hat


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    n, m, rng = 4000, 4, np.random.default_rng(0)
    x = np.empty((n, m))
    x[0] = rng.normal(size=m) / math.sqrt(1 - rho**2)
    for i in range(1, n):
        x[i] = rho * x[i - 1] + rng.normal(size=m)
    exact = n * m * (1 - rho) / (1 + rho)
    assert effective_sample_size(x) == pytest.approx(exact, rel=0.25)
    assert r_hat(x) == pytest.approx(1, abs=0.02)


def test_r_hat_of_shifted_and_of_scaled_chains():
    x = np.random.default_rng(0).normal(size=(1000, 4))
    assert r_hat(x) < 1.01
    assert r_hat(x + np.array([0, 0, 0, 1])) > 1.1
    assert r_hat(x * np.array([1, 1, 1, 5])) > 1.1
