"""Every move leaves a density as it is: draws of it stay draws of it."""

import numpy as np
import pytest
from scipy import stats

from skbi.samplers import moves
from skbi.samplers.moves import Cloud, Moves

KINDS = {
    "independent": moves.Independent,
    "differences": moves.Differences,
    "hop": moves.Hop,
    "autoregressive": moves.Autoregressive,
    "local": moves.Local,
    "redraw": moves.Redraw,
}
N_CHAINS, N_SWEEPS = 3000, 40


class Gaussian:
    """A normal distribution in three dimensions, with correlations."""

    mean = np.array([0.5, -1.0, 0.0])
    root = np.array([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.2, 0.8]])
    law = stats.multivariate_normal(mean, root @ root.T)
    log_prob = law.logpdf

    def sample(self, n, rng):
        """Draw (n, 3)."""
        return self.mean + rng.normal(size=(n, 3)) @ self.root.T

    def marginal(self, j):
        """Return the distribution function of a coordinate."""
        return stats.norm(self.mean[j], np.sqrt(self.law.cov[j, j])).cdf


class TwoModes:
    """A mixture of two normal distributions in two dimensions, of unequal width and mass."""

    def sample(self, n, rng):
        """Draw (n, 2)."""
        z = rng.normal(size=(n, 2))
        return np.where(rng.random((n, 1)) < 0.3, 4 + 0.3 * z, z)

    def log_prob(self, z):
        """Log density."""
        near, far = stats.norm.logpdf(z).sum(axis=1), stats.norm.logpdf(z, 4, 0.3).sum(axis=1)
        return np.logaddexp(np.log(0.7) + near, np.log(0.3) + far)

    def marginal(self, j):
        """Return the distribution function of a coordinate."""
        return lambda z: 0.7 * stats.norm.cdf(z) + 0.3 * stats.norm.cdf(z, 4, 0.3)


def sweep(move, z, target, cloud, rng, sign=1):
    """Return the chains after a Metropolis step, and the probabilities of its acceptance."""
    proposed, ratio = move.propose(z, cloud, rng)
    ratio = sign * np.asarray(ratio) + target.log_prob(proposed) - target.log_prob(z)
    acceptance = np.exp(np.minimum(ratio, 0))
    accepted = rng.random(len(z)) < acceptance
    return np.where(accepted[:, None], proposed, z), acceptance


def walk(kind, target, sign=1, seed=0):
    """Move exact draws many times, by proposals that learnt from a poor picture of the target."""
    rng = np.random.default_rng(seed)
    z = target.sample(N_CHAINS, rng)
    latent = np.arange(z.shape[1]) < 2
    cloud = Cloud(1.5 * target.sample(300, rng) + 0.3, latent, rng)
    move, start, accepted = kind(), z, []
    for _ in range(N_SWEEPS):
        z, acceptance = sweep(move, z, target, cloud, rng, sign)
        accepted.append(acceptance.mean())
    return start, z, np.mean(accepted)


def assert_follow(z, target, rng):
    """Compare chains, which are independent, with the target: quantiles and second moments."""
    for j, column in enumerate(z.T):
        assert stats.kstest(column, target.marginal(j)).pvalue > 1e-4
    exact = target.sample(100_000, rng)
    for of in (lambda z: z, lambda z: z**2, lambda z: z[:, :1] * z[:, 1:]):
        gap = of(z).mean(axis=0) - of(exact).mean(axis=0)
        error = of(exact).std(axis=0) * np.sqrt(1 / len(z) + 1 / len(exact))
        assert (np.abs(gap) < 4.5 * error).all()


targets = pytest.mark.parametrize("target", [Gaussian(), TwoModes()], ids=["gaussian", "modes"])


@targets
@pytest.mark.parametrize("name", KINDS)
def test_every_move_leaves_a_density_as_it_is(name, target):
    start, z, acceptance = walk(KINDS[name], target)
    assert_follow(z, target, np.random.default_rng(1))
    assert acceptance > 0.05
    assert (start != z).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("name", ["independent", "autoregressive", "local", "redraw"])
def test_a_wrong_ratio_would_be_seen(name):
    _, z, _ = walk(KINDS[name], TwoModes(), sign=-1)
    with pytest.raises(AssertionError):
        assert_follow(z, TwoModes(), np.random.default_rng(1))


@pytest.mark.parametrize(
    ("name", "target"),
    [(name, Gaussian()) for name in KINDS]
    + [(name, TwoModes()) for name in ("independent", "hop", "autoregressive")],
)  # the other moves need not cross from mode to mode
def test_chains_that_start_elsewhere_find_the_target(name, target):
    rng = np.random.default_rng(0)
    latent = np.full(target.sample(1, rng).shape[1], True)
    cloud = Cloud(target.sample(500, rng), latent, rng)
    move, z = KINDS[name](), target.sample(N_CHAINS, rng) * 0.1 + 0.2
    for _ in range(300):
        z, acceptance = sweep(move, z, target, cloud, rng)
        move.learn(acceptance, np.ones(len(z)))
    assert_follow(z, target, np.random.default_rng(1))


def test_redraw_changes_discrete_coordinates_only():
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.normal(size=(100, 3)), np.array([False, True, False]), rng)
    z = rng.normal(size=(1000, 3))
    proposed, ratio = moves.Redraw().propose(z, cloud, rng)
    np.testing.assert_array_equal(proposed[:, [0, 2]], z[:, [0, 2]])
    assert (proposed[:, 1] != z[:, 1]).all()
    law = stats.norm.logpdf
    np.testing.assert_allclose(ratio, law(z[:, 1]) - law(proposed[:, 1]), atol=1e-12)


def test_a_redrawn_coordinate_that_is_known_keeps_what_is_left_of_its_prior():
    """N(0, 1) above a half, as for a discrete parameter whose value is known."""
    rng, start = np.random.default_rng(0), np.full((4000, 3), 0.6)
    cloud = Cloud(rng.normal(size=(100, 3)), np.array([False, True, False]), rng)

    class AboveAHalf:
        def log_prob(self, z):
            return np.where(z[:, 1] > 0.5, stats.norm.logpdf(z).sum(axis=1), -np.inf)

    move, z = moves.Redraw(), start
    for _ in range(40):
        z, _ = sweep(move, z, AboveAHalf(), cloud, rng)
    np.testing.assert_array_equal(z[:, [0, 2]], start[:, [0, 2]])
    assert stats.kstest(z[:, 1], stats.truncnorm(0.5, np.inf).cdf).pvalue > 1e-4


def test_an_autoregressive_move_is_always_accepted_by_the_density_that_it_leaves():
    rng = np.random.default_rng(0)
    cloud = Cloud(rng.normal(size=(300, 2)) @ [[1.0, 0.5], [0.0, 0.2]] + 3, np.zeros(2, bool), rng)
    student = stats.multivariate_t(cloud.mean, cloud.root @ cloud.root.T, df=5, seed=rng)
    z = student.rvs(2000)
    proposed, ratio = moves.Autoregressive().propose(z, cloud, rng)
    np.testing.assert_allclose(ratio, student.logpdf(z) - student.logpdf(proposed), atol=1e-9)


def test_distances_are_measured_in_units_of_the_cloud():
    rng = np.random.default_rng(0)
    points = Gaussian().sample(2000, rng)
    cloud = Cloud(points, np.zeros(3, bool), rng)
    assert cloud.squared_distance(points[:1000] - points[1000:]).mean() == pytest.approx(1, rel=0.1)
    z = rng.normal(size=(5, 3))
    np.testing.assert_allclose(cloud.whiten(z @ cloud.root.T), z, atol=1e-9)
    assert cloud.squared_distance(cloud.draw_differences(5000, rng)).mean() == pytest.approx(
        1, rel=0.1
    )


def test_scales_are_adapted_to_the_acceptance():
    for kind in (moves.Differences, moves.Autoregressive, moves.Local):
        move, before = kind(), kind.scale
        move.learn(np.zeros(10), np.ones(10))
        assert move.scale < before
        for _ in range(100):
            move.learn(np.ones(10), np.ones(10))
        assert move.scale == move.max_scale
    move = moves.Independent()
    move.learn(np.zeros(10), np.ones(10))
    assert move.scale == 1


@pytest.mark.parametrize("kind", [moves.Differences, moves.Local, moves.Autoregressive])
def test_scales_find_the_wanted_acceptance(kind):
    """The cloud is three times as wide as the target."""
    rng, target, move = np.random.default_rng(0), Gaussian(), kind()
    cloud = Cloud(3 * target.sample(500, rng), np.zeros(3, bool), rng)
    z, accepted = target.sample(1000, rng), []
    for _ in range(60):
        z, acceptance = sweep(move, z, target, cloud, rng)
        move.learn(acceptance, np.ones(len(z)))
        accepted.append(acceptance.mean())
    assert np.mean(accepted[30:]) == pytest.approx(move.target_acceptance, abs=0.05)


def test_what_moves_far_is_tried_more_often_and_nothing_is_given_up():
    rng = np.random.default_rng(0)
    for latent, n_kinds in ((np.zeros(2, bool), 5), (np.array([True, False]), 6)):
        every = Moves(latent)
        assert len(every.kinds) == n_kinds
        for _ in range(50):
            every.kinds[1].learn(np.ones(4), np.ones(4))
            for move in every.kinds[:1] + every.kinds[2:]:
                move.learn(np.zeros(4), np.ones(4))
        tried = [every.choose(rng) for _ in range(2000)]
        counts = [tried.count(move) for move in every.kinds]
        assert min(counts) > 0.035 * 2000  # a twentieth each
        assert counts[1] > 0.5 * 2000
