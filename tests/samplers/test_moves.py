"""Moves leave a density as it is, whatever cloud they learn from."""

import numpy as np
import pytest
from scipy import stats

from skbi.samplers.moves import (
    Autoregressive,
    Cloud,
    Differences,
    Hop,
    Independent,
    Local,
    Moves,
    Redraw,
)

KINDS = [Independent, Differences, Hop, Autoregressive, Local]
COVARIANCE = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
GAUSSIAN = stats.multivariate_normal(np.zeros(3), COVARIANCE)
CONTINUOUS = np.zeros(3, dtype=bool)


def modes(z):
    """Log density of two modes in one coordinate, and a Gaussian in the others."""
    first = np.logaddexp(
        np.log(0.3) + stats.norm.logpdf(z[:, 0], -2, 0.4),
        np.log(0.7) + stats.norm.logpdf(z[:, 0], 2, 0.7),
    )
    return first + stats.norm.logpdf(z[:, 1:]).sum(axis=1)


def draw_modes(n, rng):
    z = rng.normal(size=(n, 3))
    left = rng.random(n) < 0.3
    z[:, 0] = np.where(left, -2 + 0.4 * z[:, 0], 2 + 0.7 * z[:, 0])
    return z


def move(kind, z, log_density, cloud, rng, sweeps=20):
    for _ in range(sweeps):
        proposed, log_ratio = kind.propose(z, cloud, rng)
        log_ratio = log_ratio + log_density(proposed) - log_density(z)
        acceptance = np.exp(np.minimum(log_ratio, 0))
        kind.learn(acceptance, cloud.squared_distance(proposed - z))
        z = np.where((rng.random(len(z)) < acceptance)[:, None], proposed, z)
    return z


@pytest.mark.parametrize("kind", KINDS)
def test_a_gaussian_stays_as_it_is(kind):
    """The cloud is another density, narrower and moved: a wrong ratio would draw towards it."""
    rng = np.random.default_rng(0)
    cloud = Cloud(0.8 * rng.normal(size=(400, 3)) + 0.3, CONTINUOUS, rng)
    start = rng.multivariate_normal(np.zeros(3), COVARIANCE, size=4000)
    end = move(kind(), start, GAUSSIAN.logpdf, cloud, rng)
    assert (start != end).any(axis=1).mean() > 0.5
    whitened = np.linalg.solve(np.linalg.cholesky(COVARIANCE), end.T)
    for column in whitened:
        assert stats.kstest(column, "norm").pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_two_modes_stay_as_they_are(kind):
    rng = np.random.default_rng(1)
    cloud = Cloud(draw_modes(400, rng), CONTINUOUS, rng)
    end = move(kind(), draw_modes(4000, rng), modes, cloud, rng)
    assert abs((end[:, 0] < 0).mean() - 0.3) < 5 * (0.21 / 4000) ** 0.5
    right = end[end[:, 0] > 0, 0]
    assert stats.kstest(right, stats.norm(2, 0.7).cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", [Independent, Hop])
def test_some_moves_find_another_mode(kind):
    rng = np.random.default_rng(2)
    cloud = Cloud(draw_modes(400, rng), CONTINUOUS, rng)
    start = draw_modes(2000, rng)
    start = start[start[:, 0] < 0]
    end = move(kind(), start, modes, cloud, rng, sweeps=60)
    assert (end[:, 0] > 0).mean() > 0.4


def test_a_redrawn_coordinate_keeps_the_prior():
    """Its density is N(0, 1) cut at 0.5, as for a discrete parameter that is known."""
    rng = np.random.default_rng(3)
    latent = np.array([False, True, False])
    cloud = Cloud(rng.normal(size=(100, 3)), latent, rng)

    def log_density(z):
        return np.where(z[:, 1] > 0.5, stats.norm.logpdf(z).sum(axis=1), -np.inf)

    start = rng.normal(size=(20_000, 3))
    start = start[start[:, 1] > 0.5]
    start[:, 1] = 0.6
    end = move(Redraw(), start, log_density, cloud, rng, sweeps=40)
    np.testing.assert_array_equal(end[:, [0, 2]], start[:, [0, 2]])
    assert stats.kstest(end[:, 1], stats.truncnorm(0.5, np.inf).cdf).pvalue > 1e-4


def test_scales_adapt_to_the_wanted_acceptance():
    rng = np.random.default_rng(4)
    cloud = Cloud(5 * rng.normal(size=(400, 3)), CONTINUOUS, rng)
    for kind in (Differences(), Local()):
        z = rng.multivariate_normal(np.zeros(3), COVARIANCE, size=1000)
        move(kind, z, GAUSSIAN.logpdf, cloud, rng, sweeps=40)
        proposed, log_ratio = kind.propose(z, cloud, rng)
        log_ratio = log_ratio + GAUSSIAN.logpdf(proposed) - GAUSSIAN.logpdf(z)
        assert abs(np.exp(np.minimum(log_ratio, 0)).mean() - kind.target_acceptance) < 0.1


def test_kinds_are_chosen_by_their_worth_and_redraws_for_discrete_parameters_only():
    moves = Moves(CONTINUOUS)
    assert not any(isinstance(kind, Redraw) for kind in moves.kinds)
    assert isinstance(Moves(np.array([True, False])).kinds[-1], Redraw)
    for kind in moves.kinds:
        kind.efficiency = 0.0
    moves.kinds[2].efficiency = 1.0
    rng = np.random.default_rng(0)
    chosen = [moves.choose(rng) for _ in range(2000)]
    share = np.mean([kind is moves.kinds[2] for kind in chosen])
    assert 0.7 < share < 0.9  # 0.8, as each of the others has a twentieth
    assert all(kind in chosen for kind in moves.kinds)
