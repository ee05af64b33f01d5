"""The equation of a field against closed forms and an adaptive solver."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import solve_ivp

from skbi.estimators.flow_odes import log_densities, random_signs, to_noise, transport
from skbi.networks.vector_fields import VectorField

SD = 0.4


def narrowing(y, angle):
    """Move standard normal noise to N(0, 0.4^2): points keep their distance in sds."""
    variance = torch.cos(angle) ** 2 + (SD * torch.sin(angle)) ** 2
    return y * (SD**2 - 1) * torch.sin(angle) * torch.cos(angle) / variance


def network(p):
    """Return the field of a network that is not zero, for one observation."""
    torch.manual_seed(0)
    field = VectorField(p, 3, (16, 16)).double()
    torch.nn.init.normal_(field.last.weight, std=0.3)
    condition = field.condition(torch.randn(1, 3, dtype=torch.float64)).detach()
    return lambda y, angle: field(y, angle, condition)


def test_a_gaussian_is_drawn_and_has_its_density():
    noise = torch.randn(50, 3, dtype=torch.float64)
    w = transport(narrowing, noise, 64)
    torch.testing.assert_close(w, SD * noise, rtol=1e-3, atol=1e-3)
    log_q, error = log_densities(narrowing, w, 64)
    np.testing.assert_allclose(log_q, stats.norm(0, SD).logpdf(w).sum(axis=1), atol=5e-3)
    assert (error == 0).all()
    wider, _ = log_densities(narrowing, w, 64, noise_scale=1.5)
    np.testing.assert_allclose(wider, stats.norm(0, 1.5 * SD).logpdf(w).sum(axis=1), atol=5e-3)


@torch.no_grad()
def test_the_way_back_to_noise_is_the_inverse():
    field, noise = network(3), torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(
        to_noise(field, transport(field, noise, 64), 64), noise, rtol=0, atol=2e-3
    )


@torch.no_grad()
def test_steps_of_the_midpoint_rule_come_close_to_an_adaptive_solver():
    field, noise = network(2), torch.randn(1, 2, dtype=torch.float64)

    def slope(angle, y):
        return field(torch.as_tensor(y)[None], torch.tensor(angle, dtype=torch.float64))[0]

    exact = solve_ivp(slope, (0, math.pi / 2), noise[0], rtol=1e-9, atol=1e-9).y[:, -1]
    errors = [np.abs(transport(field, noise, n)[0].numpy() - exact).max() for n in (16, 32, 64)]
    assert errors[0] < 0.01
    for coarse, fine in pairwise(errors):
        assert fine < 0.4 * coarse  # of second order


@torch.no_grad()
def test_a_density_is_that_of_the_draws_by_the_determinant_of_the_map():
    field, noise = network(3), torch.randn(4, 3, dtype=torch.float64)
    w = transport(field, noise, 64)
    for one, point in zip(noise, w, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda e: transport(field, e[None], 64)[0], one
        )
        expected = stats.norm.logpdf(one).sum() - np.linalg.slogdet(jacobian.numpy())[1]
        assert log_densities(field, point[None], 64)[0].item() == pytest.approx(expected, abs=2e-3)


@torch.no_grad()
def test_random_signs_estimate_the_divergence_within_their_error():
    field, w = network(6), torch.randn(200, 6, dtype=torch.float64)
    exact, _ = log_densities(field, w, 8)
    found, error = log_densities(field, w, 8, random_signs(64, 6, w))
    assert error.mean() > 0.001
    assert 0.3 < ((found - exact) / error).square().mean().sqrt() < 3
    assert set(random_signs(64, 6, w).flatten().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(random_signs(4, 6, w), random_signs(4, 6, w))
