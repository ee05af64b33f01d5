"""Sequential Monte Carlo against closed forms, and many observations against one by one."""

import itertools
import math

import numpy as np
import pytest
from hierarchical import Hierarchical
from likelihoods import CoinAndShift, LinearGaussian, flat
from scipy import integrate, stats
from scipy.special import logsumexp

from skbi import JointPrior
from skbi.samplers import smc
from skbi.samplers.smc import smc_together


def sample(likelihood, prior, n=2000, seed=0, **options):
    return smc(likelihood, prior, n, np.random.default_rng(seed), **options)


def uniform(low, high, k):
    return JointPrior({f"t{j}": stats.uniform(low, high - low) for j in range(k)})


def agrees(draws, mean, sd):
    """Means within 0.1 sd, and sds within a tenth."""
    assert (np.abs(draws.mean(axis=0) - mean) < 0.1 * sd).all()
    assert (np.abs(draws.std(axis=0) / sd - 1) < 0.1).all()


@pytest.mark.parametrize("p", [2, 10, 40])
def test_linear_gaussian(p):
    problem = LinearGaussian(p, p + 2)
    draws, info = sample(problem, problem.prior)
    agrees(draws, problem.mean, np.sqrt(np.diag(problem.covariance)))
    error = abs(info.log_evidence - problem.log_evidence)
    assert error < 0.1 + 4 * info.log_evidence_error
    assert info.warnings == ()
    assert (info.ess > 400).all()
    assert (info.ess <= 2048).all()


def test_the_error_of_the_evidence_is_honest():
    problem = LinearGaussian(3, 4, seed=1)
    infos = [sample(problem, problem.prior, 500, seed)[1] for seed in range(20)]
    z = [(info.log_evidence - problem.log_evidence) / info.log_evidence_error for info in infos]
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 2


def test_two_modes_have_their_shares():
    """Twenty standard deviations apart, under a prior of thirty."""
    prior = JointPrior({name: stats.norm(0, 30) for name in "abc"})

    def log_likelihood(theta):
        modes = [
            np.log(share) + stats.norm.logpdf(theta, [centre, 0, 0]).sum(axis=1)
            for share, centre in ((0.8, -10), (0.2, 10))
        ]
        return np.logaddexp(*modes) - prior.log_prob(theta)

    for seed in range(3):
        draws, info = sample(log_likelihood, prior, 4000, seed)
        assert abs((draws[:, 0] < 0).mean() - 0.8) < 0.03
        assert abs(info.log_evidence) < 0.1 + 4 * info.log_evidence_error


def test_a_banana():
    """The curve b = a^2, a ~ N(0, 1), a twentieth wide."""

    def log_likelihood(theta):
        a, b = theta.T
        return stats.norm.logpdf(a) + stats.norm.logpdf(b, a**2, 0.05)

    draws, info = sample(log_likelihood, uniform(-8, 30, 2), 4000)
    assert abs(draws[:, 0].mean()) < 0.1
    assert abs(draws[:, 0].std() - 1) < 0.1
    assert stats.kstest((draws[:, 1] - draws[:, 0] ** 2) / 0.05, "norm").pvalue > 1e-4
    assert abs(info.log_evidence + 2 * math.log(38)) < 0.1 + 4 * info.log_evidence_error


def test_a_posterior_a_millionth_of_the_priors_width():
    def log_likelihood(theta):
        return stats.norm.logpdf(theta, [0.3, 0.6], 1e-6).sum(axis=1)

    draws, info = sample(log_likelihood, uniform(0, 1, 2))
    agrees(draws, [0.3, 0.6], np.full(2, 1e-6))
    assert abs(info.log_evidence) < 0.1 + 4 * info.log_evidence_error


def test_discrete_beside_continuous_parameters():
    """A Bernoulli and a Poisson parameter shift two numbers; exact by summing them out."""
    prior = JointPrior(
        {"k": stats.bernoulli(0.3), "a": stats.norm(), "n": stats.poisson(4), "b": stats.norm()}
    )
    x, y, noise = 1.2, 2.4, (0.3, 0.2)

    def log_likelihood(theta):
        k, a, n, b = theta.T
        return stats.norm.logpdf(x, a + 2 * k, noise[0]) + stats.norm.logpdf(
            y, b + 0.5 * n, noise[1]
        )

    pairs = np.array(list(itertools.product(range(2), range(40))), dtype=float)
    k, n = pairs.T
    log_joint = (
        stats.bernoulli.logpmf(k, 0.3)
        + stats.poisson.logpmf(n, 4)
        + stats.norm.logpdf(x, 2 * k, math.hypot(1, noise[0]))
        + stats.norm.logpdf(y, 0.5 * n, math.hypot(1, noise[1]))
    )
    weight = np.exp(log_joint - logsumexp(log_joint))
    draws, info = sample(log_likelihood, prior, 4000)
    assert set(np.unique(draws[:, 0])) == {0.0, 1.0}
    assert abs(draws[:, 0].mean() - weight @ k) < 0.05
    mean, sd = weight @ n, np.sqrt(weight @ (n - weight @ n) ** 2)
    agrees(draws[:, [2]], mean, sd)
    error = abs(info.log_evidence - logsumexp(log_joint))
    assert error < 0.1 + 4 * info.log_evidence_error


def test_discrete_parameters_alone():
    """Twenty switches, each seen through noise: independent posteriors."""
    prior = JointPrior({f"k{j}": stats.bernoulli(0.5) for j in range(20)})
    x = np.random.default_rng(0).normal(0.5, 0.8, size=20)
    odds = stats.norm.logpdf(x, 1, 0.7) - stats.norm.logpdf(x, 0, 0.7)
    draws, info = sample(lambda theta: stats.norm.logpdf(x, theta, 0.7).sum(axis=1), prior, 4000)
    np.testing.assert_allclose(draws.mean(axis=0), 1 / (1 + np.exp(-odds)), atol=0.06)
    exact = np.logaddexp(*(stats.norm.logpdf(x, k, 0.7) for k in (0, 1))).sum() - 20 * math.log(2)
    assert abs(info.log_evidence - exact) < 0.1 + 4 * info.log_evidence_error


def test_a_coin_picks_the_mean():
    problem = CoinAndShift()
    draws, info = sample(problem, problem.prior, 4000)
    assert abs(draws[:, 0].mean() - problem.probability) < 0.04
    assert abs(info.log_evidence - problem.log_evidence) < 0.1 + 4 * info.log_evidence_error


class Triangle:
    """0 < b < a < 1, uniform: a dependent prior of one's own."""

    names, discrete = ("a", "b"), np.zeros(2, dtype=bool)
    support = np.array([[0.0, 1.0], [0.0, 1.0]])

    def ppf(self, u):
        a = np.sqrt(np.asarray(u)[:, 0])
        return np.column_stack([a, a * np.asarray(u)[:, 1]])


def test_a_dependent_prior():
    """Only a is observed, so that b is uniform below it."""
    draws, _ = sample(lambda t: stats.norm.logpdf(0.5, t[:, 0], 0.05), Triangle(), 4000)
    assert (draws[:, 1] < draws[:, 0]).all()
    assert stats.kstest(draws[:, 1] / draws[:, 0], "uniform").pvalue > 1e-4
    assert abs(draws[:, 0].mean() - 0.505) < 0.01  # weighted by a: 0.5 + 0.05^2 / 0.5


def test_draws_are_exact_at_the_edges_of_a_triangle():
    """A prior of dependent parameters, at observations on and beyond its edges and corners."""
    prior, noise = Triangle(), 0.05
    side = (np.arange(600) + 0.5) / 600
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    grid = grid[grid[:, 1] < grid[:, 0]]
    for x in ([0.5, 0.0], [0.5, 0.55], [0.95, 0.95], [0.05, 0.02], [1.05, 0.5]):

        def log_likelihood(theta, x=x):
            return stats.norm.logpdf(theta, x, noise).sum(axis=1)

        draws, _ = sample(log_likelihood, prior, 4000)
        assert ((draws[:, 1] > 0) & (draws[:, 1] < draws[:, 0]) & (draws[:, 0] < 1)).all()
        weights = np.exp(log_likelihood(grid))
        mean = np.average(grid, axis=0, weights=weights)
        sd = np.average((grid - mean) ** 2, axis=0, weights=weights) ** 0.5
        agrees(draws, mean, sd)


def test_a_dependent_prior_without_bounds():
    """Value ~ N(0, scale^2) is seen with noise: exact by a quadrature over the scale."""

    def moment(k):
        def density(scale):
            seen = stats.norm.pdf(0.7, 0, math.hypot(scale, 0.1))
            return scale**k * stats.expon.pdf(scale) * seen

        return integrate.quad(density, 0, 60, limit=500)[0]

    evidence = moment(0)
    mean = moment(1) / evidence
    sd = math.sqrt(moment(2) / evidence - mean**2)
    draws, info = sample(lambda t: stats.norm.logpdf(0.7, t[:, 1], 0.1), Hierarchical(), 4000)
    agrees(draws[:, :1], mean, sd)
    assert abs(info.log_evidence - math.log(evidence)) < 0.1 + 4 * info.log_evidence_error


def test_a_likelihood_that_says_nothing_leaves_the_prior():
    prior = JointPrior({"a": stats.gamma(2), "b": stats.norm()})
    draws, info = sample(flat, prior)
    for column, marginal in zip(draws.T, prior.marginals.values(), strict=True):
        assert stats.kstest(column, marginal.cdf).pvalue > 1e-3
    assert abs(info.log_evidence) < 4 * info.log_evidence_error


def test_the_effective_sample_size_is_that_of_independent_draws_with_the_same_error():
    """Of 40 runs, the mean square error of a mean is (sd^2 / ess) to within 3 of its errors."""
    problem, n_runs = LinearGaussian(3, 4, seed=1), 40
    runs = [sample(problem, problem.prior, 512, seed) for seed in range(n_runs)]
    gaps = np.array([draws.mean(axis=0) - problem.mean for draws, _ in runs])
    expected = np.mean([1 / info.ess for _, info in runs], axis=0) * np.diag(problem.covariance)
    ratio = (gaps**2).mean(axis=0) / expected
    assert (np.abs(ratio - 1) < 3 * math.sqrt(2 / n_runs)).all()
    assert min(info.ess.min() for _, info in runs) > 256


@pytest.mark.parametrize("n_particles", [16, 17, 40])
def test_few_particles_are_enough_for_a_cheap_posterior(n_particles):
    problem, z = LinearGaussian(2, 3), []
    for seed in range(10):
        draws, info = sample(problem, problem.prior, 320, seed, n_particles=n_particles)
        assert draws.shape == (320, 2)
        z.append((info.log_evidence - problem.log_evidence) / info.log_evidence_error)
        assert np.isfinite(z[-1])
    assert np.sqrt(np.mean(np.square(z))) < 3


def test_a_likelihood_that_is_zero_on_most_of_the_prior():
    def log_likelihood(theta):
        inside = (np.abs(theta - 0.5) < 0.02).all(axis=1)
        return np.where(inside, 0.0, -np.inf)

    draws, info = sample(log_likelihood, uniform(0, 1, 2))
    assert (np.abs(draws - 0.5) < 0.02).all()
    for column in draws.T:
        assert stats.kstest(column, stats.uniform(0.48, 0.04).cdf).pvalue > 1e-4
    assert abs(info.log_evidence - 2 * math.log(0.04)) < 0.1 + 4 * info.log_evidence_error


def test_nan_is_no_likelihood():
    def log_likelihood(theta):
        return np.where(theta[:, 0] < 0, np.nan, stats.norm.logpdf(0.2, theta[:, 0], 0.5))

    draws, _ = sample(log_likelihood, JointPrior({"a": stats.norm()}))
    assert (draws > 0).all()


def test_what_cannot_be_sampled_is_refused():
    prior = JointPrior({"a": stats.norm()})
    with pytest.raises(ValueError, match=r"Of 128000 draws of the prior 0 .*narrow the prior"):
        sample(lambda theta: np.full(len(theta), -np.inf), prior)
    with pytest.raises(ValueError, match=r"n_particles >= 16.* got 4"):
        sample(lambda theta: theta[:, 0], prior, n_particles=4)


def test_particles_that_cannot_move_are_reported():
    """A comb of fine needles: one proposal in 2,000 hits one, as one prior draw does."""

    def log_likelihood(theta):
        return np.where(np.mod(theta[:, 0] * 1e6, 1) < 5e-4, 0.0, -np.inf)

    _, info = sample(log_likelihood, uniform(0, 1, 1), 200)
    (message,) = info.warnings
    assert "have not mixed" in message
    assert info.ess[0] < 100


class Shifted(LinearGaussian):
    """A problem that offers a cheaper, wrong likelihood to begin with."""

    calls = 0

    def approximations(self):
        return [self.rough]

    def rough(self, theta):
        return super().__call__(theta + 0.3) / 3

    def __call__(self, theta):
        Shifted.calls += len(theta)
        return super().__call__(theta)


def test_the_path_through_an_approximation_ends_at_the_likelihood():
    problem, Shifted.calls = Shifted(3, 5), 0
    draws, info = sample(problem, problem.prior)
    agrees(draws, problem.mean, np.sqrt(np.diag(problem.covariance)))
    assert abs(info.log_evidence - problem.log_evidence) < 0.1 + 4 * info.log_evidence_error
    assert Shifted.calls < info.n_calls


@pytest.mark.parametrize("n_particles", [None, 100])
def test_observations_together_are_as_one_by_one(n_particles):
    problems = [LinearGaussian(2, 3, seed=seed) for seed in range(3)]
    options = {"n_particles": n_particles}
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    together, infos = smc_together(problems, problems[0].prior, 300, rngs, **options)
    for seed, problem in enumerate(problems):
        draws, info = sample(problem, problem.prior, 300, seed, **options)
        np.testing.assert_array_equal(draws, together[seed])
        assert info.log_evidence == infos[seed].log_evidence
        assert info.n_calls == infos[seed].n_calls


def test_progress_is_shown_on_request(capsys):
    problem = LinearGaussian()
    sample(problem, problem.prior, 10)
    assert capsys.readouterr() == ("", "")
    sample(problem, problem.prior, 10, verbose=1)
    assert "temperature" in capsys.readouterr().err
