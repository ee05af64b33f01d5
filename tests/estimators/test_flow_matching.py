"""Flow matching: the mean of several velocities, and times."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from skbi.estimators.flow_matching import FlowMatching, best_mean


@given(seed=st.integers(0, 1000), m=st.integers(1, 4))
def test_the_best_mean_is_best(seed, m):
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(m, 20)) + rng.normal(size=20)
    products = errors @ errors.T / 20
    shares = best_mean(products)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1)
    options = {"bounds": [(0, 1)] * m, "constraints": {"type": "eq", "fun": lambda w: w.sum() - 1}}
    found = minimize(lambda w: w @ products @ w, np.full(m, 1 / m), **options)
    assert shares @ products @ shares <= found.fun * 1.001 + 1e-9


class Rows:
    """Stands in for `ResidualRows`."""

    n_validation, n_parameters, in_training = 5, 2, True

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator)

    def order(self, n):
        return torch.randperm(n, generator=self.generator)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 4.0])
def test_times_have_a_density_proportional_to_a_power(exponent):
    loss = FlowMatching(Rows(), exponent)
    angle, noise = loss._new(torch.arange(5000))
    assert noise.shape == (1, 5000, 2)
    sin, cos = angle[0].sin(), angle[0].cos()
    t = sin / (sin + cos)
    assert stats.kstest(t.numpy() ** (1 + exponent), "uniform").statistic < 1e-3  # by quantiles
    assert loss.angles.shape == (8, 5)
    assert (loss.angles.diff(dim=0) > 0).all()
