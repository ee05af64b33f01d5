"""Consistency functions: the boundary, the start, the grid of times, draws and energies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from skbi.estimators.consistency import (
    MIN_TIME,
    ConsistencyLoss,
    consistency,
    draw_in_steps,
    draw_times,
    energies,
    time_grid,
)
from skbi.estimators.residuals import TransportMember
from skbi.networks.vector_fields import VectorField

DOUBLE = torch.zeros(0, dtype=torch.float64)


def member(*, trained=True, p=2):
    torch.manual_seed(0)
    field = VectorField(p, 3, (6, 6)).double()
    if trained:
        torch.nn.init.normal_(field.last.weight)
    return TransportMember(None, field, 3, 3).double()


def condition(reading, n=1):
    return reading.condition(torch.randn(n, reading.n_context, dtype=torch.float64))


@given(seed=st.integers(0, 1000))
def test_at_the_least_time_nothing_is_changed(seed):
    torch.manual_seed(seed)
    reading, y = member(), 5 * torch.randn(4, 2, dtype=torch.float64)
    time = torch.tensor(MIN_TIME, dtype=torch.float64)
    torch.testing.assert_close(consistency(reading, y, time, condition(reading)), y)


def test_it_starts_at_the_function_of_standard_normal_residuals():
    """Which divides every point by the standard deviation of the points at its time."""
    reading, y = member(trained=False), torch.randn(4, 2, dtype=torch.float64)
    for time in (0.01, 1.0, 10.0):
        t = torch.tensor(time, dtype=torch.float64)
        found = consistency(reading, y, t, condition(reading))
        torch.testing.assert_close(found, y / (1 + time**2) ** 0.5, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("n_steps", [1, 3, 10])
def test_draws_of_the_start_are_standard_normal(n_steps):
    reading = member(trained=False)
    noise = torch.randn(n_steps, 5000, 2, dtype=torch.float64)
    draws = draw_in_steps(reading, condition(reading), noise, 10.0)
    assert stats.kstest(draws.detach().flatten().numpy(), "norm").pvalue > 1e-3


def test_times_are_the_seventh_power_of_an_even_grid():
    grid = time_grid(40, 10.0, like=DOUBLE)
    i = np.arange(1, 42)
    low, high = 1e-3 ** (1 / 7), 10 ** (1 / 7)
    np.testing.assert_allclose(grid, (low + (i - 1) / 40 * (high - low)) ** 7)


@pytest.mark.parametrize("n_steps", [2, 3, 10])
def test_times_of_draws_fall_in_equal_ratios_to_a_quarter(n_steps):
    times = draw_times(n_steps, 10.0, like=DOUBLE)
    np.testing.assert_allclose(times[[0, -1]], [10, 0.25])
    np.testing.assert_allclose(times[1:] / times[:-1], (0.25 / 10) ** (1 / (n_steps - 1)))


def test_a_draw_in_one_step_is_from_the_largest_time():
    assert draw_times(1, 10.0, like=DOUBLE).tolist() == [10]


class Rows:
    """Stands in for `ResidualRows`."""

    n_validation, n_parameters, z = 5, 2, DOUBLE
    training = type("training", (), {"members": [None]})

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def order(self, n):
        return torch.randperm(n, generator=self.generator)


def test_the_grid_is_refined_during_training():
    loss = ConsistencyLoss(Rows(), 10.0, n_steps=500)
    sizes = []
    for step in (0, 99, 100, 250, 499, 500, 700):
        loss.step = step
        sizes.append(loss.n_intervals)
    assert sizes[0] == sizes[1] == 10
    assert sizes[2] == 20
    assert sizes == sorted(sizes)
    assert sizes[-1] == sizes[-2] == sizes[-3] == 160
    loss.step = 0
    assert loss.to_come == 1
    loss.step = 400
    assert loss.to_come == 0


def test_neighbours_are_drawn_by_a_log_normal_of_times():
    loss = ConsistencyLoss(Rows(), 10.0, n_steps=500)
    grid = time_grid(10, 10.0, like=DOUBLE)
    earlier, later = loss._times(20_000)
    i = torch.searchsorted(grid, later)
    torch.testing.assert_close(grid[i - 1], earlier)
    erf = [math.erf((math.log(t) + 1.1) / (2 * 2**0.5)) for t in grid]
    expected = np.diff(erf) / (erf[-1] - erf[0])
    np.testing.assert_allclose(np.bincount(i)[1:] / 20_000, expected, atol=1e-3)


@given(seed=st.integers(0, 1000), p=st.integers(1, 3), m=st.integers(2, 6))
def test_energies_are_what_the_equation_says(seed, p, m):
    rng = np.random.default_rng(seed)
    w, draws = rng.normal(size=(4, p)), rng.normal(size=(4, m, p))
    for truth, own, found in zip(
        w, draws, energies(*map(torch.as_tensor, (w, draws))), strict=True
    ):
        to_truth = np.mean([np.linalg.norm(a - truth) for a in own])
        others = [np.linalg.norm(own[i] - own[j]) for i in range(m) for j in range(m) if i != j]
        assert found.item() == pytest.approx(to_truth - 0.5 * np.mean(others))
