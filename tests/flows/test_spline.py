"""Splines: the identity outside their box, and derivatives that are autograd's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbi.flows.spline import Spline, SplineCoupling


@pytest.mark.parametrize("x", [-5.0, -4.999, 0.0, 4.999, 5.0, 7.0])
def test_splines_are_continuous_with_the_identity_outside(x):
    values = torch.randn(1, 1, SplineCoupling.n_values, 1, dtype=torch.float64)
    ends = torch.tensor([[[x - 1e-9, x + 1e-9]]], dtype=torch.float64)
    for inverse in (False, True):
        y, log_slope = SplineCoupling.transform(ends, values, inverse)
        assert (y[..., 1] - y[..., 0]).abs() < 1e-6
        if abs(x) >= 5:
            torch.testing.assert_close(y, ends, atol=1e-6, rtol=0)
        if abs(x) > 5:
            assert (log_slope == 0).all()


@given(seed=st.integers(0, 999))
def test_the_gradient_of_a_spline_is_autograds(seed):
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(0, 3, size=(2, 3, 4)), requires_grad=True)
    shape = 2, 3, SplineCoupling.n_values, rng.choice([1, 4])
    values = torch.tensor(rng.normal(size=shape), requires_grad=True)
    assert torch.autograd.gradcheck(Spline.apply, (x, values))
    with torch.no_grad():
        recorded, plain = Spline.apply(x, values), SplineCoupling.transform(x, values, False)
    torch.testing.assert_close(recorded, plain)
