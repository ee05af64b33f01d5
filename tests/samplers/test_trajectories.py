"""One draw of the no-U-turn sampler leaves every density invariant."""

import numpy as np
import pytest
from scipy import stats

from skbi.samplers.trajectories import State, no_u_turn_step


def leapfrog_of(density, step_size):
    """Return the leapfrog step of a density, which maps z to its log density and gradient."""

    def leapfrog(state, direction):
        step = step_size * direction[:, None]
        momentum = state.momentum + 0.5 * step * state.gradient
        position = state.position + step * momentum
        log_density, gradient = density(position)
        return State(position, momentum + 0.5 * step * gradient, log_density, gradient)

    return leapfrog


def normal(z):
    """Density N(0, I)."""
    return -0.5 * (z**2).sum(axis=1), -z


def log_gamma(z):
    """Logarithm of a Gamma(2) variable."""
    return (2 * z - np.exp(z)).sum(axis=1), 2 - np.exp(z)


EXACT = {
    normal: stats.norm(),
    log_gamma: stats.loggamma(2),
}


@pytest.mark.parametrize("step_size", [0.1, 0.9])
@pytest.mark.parametrize("density", EXACT)
@pytest.mark.parametrize("n_draws", [1, 5])
def test_exact_draws_stay_exact(density, step_size, n_draws):
    """Each of 4,000 independent chains starts at a draw of the density."""
    rng = np.random.default_rng(0)
    z = EXACT[density].rvs(size=(4000, 2), random_state=rng)
    start = z.copy()
    state = State(z, np.empty_like(z), *density(z))
    for _ in range(n_draws):
        no_u_turn_step(state, leapfrog_of(density, step_size), rng, max_depth=6)
    assert (state.position != start).mean() > 0.5
    log_density, gradient = density(state.position)
    np.testing.assert_array_equal(state.log_density, log_density)
    np.testing.assert_array_equal(state.gradient, gradient)
    for j in range(2):
        assert stats.kstest(state.position[:, j], EXACT[density].cdf).pvalue > 1e-3


def test_divergent_steps_are_never_accepted():
    """Steps a thousand times as long as the density is wide diverge."""
    z = np.array([[0.5], [-0.5]])
    state = State(z.copy(), np.empty_like(z), *normal(z))
    accept = no_u_turn_step(state, leapfrog_of(normal, 1e3), np.random.default_rng(0), max_depth=6)
    np.testing.assert_array_equal(state.position, z)
    assert accept < 1e-10


def test_trajectories_end_at_the_largest_depth():
    n_steps = []

    def leapfrog(state, direction):
        n_steps.append(len(direction))
        return leapfrog_of(normal, 1e-3)(state, direction)

    z = np.zeros((3, 2))
    state = State(z, np.empty_like(z), *normal(z))
    accept = no_u_turn_step(state, leapfrog, np.random.default_rng(0), max_depth=4)
    assert n_steps == [3] * (2**4 - 1)
    assert accept == pytest.approx(1, abs=1e-4)
