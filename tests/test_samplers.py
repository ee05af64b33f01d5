"""Samplers against closed forms: evidence, moments, enumeration, checkpoints, diagnostics."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from skbi import JointPrior
from skbi.samplers import (
    Batched,
    BatchPool,
    effective_sample_size,
    enumerate_all,
    importance,
    nested,
    nuts,
    pareto_smoothed,
    r_hat,
)


class LinearGaussian:
    """x = A theta + noise, theta ~ N(0, I): everything known."""

    def __init__(self, p=2, d=4, noise=0.3, seed=0):
        rng = np.random.default_rng(seed)
        self.A, self.noise = rng.normal(size=(d, p)), noise
        self.x = self.A @ rng.normal(size=p) + noise * rng.normal(size=d)
        self.prior = JointPrior({f"a{j}": stats.norm() for j in range(p)})
        self.covariance = np.linalg.inv(np.eye(p) + self.A.T @ self.A / noise**2)
        self.mean = self.covariance @ self.A.T @ self.x / noise**2
        total = self.A @ self.A.T + noise**2 * np.eye(d)
        self.log_evidence = stats.multivariate_normal(np.zeros(d), total).logpdf(self.x)

    def __call__(self, theta):
        residual = (self.x - theta @ self.A.T) / self.noise
        return -(0.5 * residual**2 + math.log(self.noise * math.sqrt(2 * math.pi))).sum(axis=1)

    def value_and_gradient(self, z):
        return self(z), (self.x - z @ self.A.T) @ self.A / self.noise**2

    def __eq__(self, other):
        return np.array_equal(self.x, other.x)


class Given:
    """A likelihood and its gradient, of parameters whose prior is N(0, 1) or discrete."""

    def __init__(self, value, gradient):
        self.value, self.gradient = value, gradient

    def __call__(self, theta):
        return self.value(theta)

    def value_and_gradient(self, z):
        return self.value(z), self.gradient(z)


# ---- nested sampling


@pytest.mark.parametrize("queue_size", [None, 1], ids=["batched", "one by one"])
@pytest.mark.parametrize("sample", ["unif", "rwalk", "slice"])
def test_the_evidence_is_unbiased_and_the_draws_follow_the_posterior(sample, queue_size):
    model, n_runs = LinearGaussian(), 3
    errors, means = [], []
    for seed in range(n_runs):
        rng, options = np.random.default_rng(seed), {"nlive": 50, "sample": sample}
        draws, info = nested(model, model.prior, 100, rng, queue_size=queue_size, **options)
        errors.append((info.log_evidence - model.log_evidence) / info.log_evidence_error)
        means.append((draws.mean(axis=0) - model.mean) / np.sqrt(np.diag(model.covariance)))
    assert abs(np.mean(errors)) < 3 / math.sqrt(n_runs)
    # 100 draws of about 150 effective ones, three times: a standard error of about 0.08
    assert np.abs(np.mean(means, axis=0)).max() < 0.35


def test_discrete_parameters_beside_continuous_ones():
    """A coin k, 0.3, picks the mean of x = (+-1) + a, a ~ N(0, 1), noise 1."""
    prior = JointPrior({"k": stats.bernoulli(0.3), "a": stats.norm()})
    x, noise = 0.4, 1.0

    def value(theta):
        return stats.norm.logpdf(x, loc=2 * theta[:, 0] - 1 + theta[:, 1], scale=noise)

    def gradient(z):
        slope = (x - 2 * z[:, 0] + 1 - z[:, 1]) / noise**2
        return np.column_stack([np.zeros(len(z)), slope])

    likelihood = Given(value, gradient)
    joint = np.log([0.7, 0.3]) + stats.norm.logpdf(x, loc=[-1, 1], scale=math.hypot(1, noise))
    truth = np.exp(joint[1] - logsumexp(joint))
    rng = np.random.default_rng(0)
    draws, info = nested(likelihood, prior, 400, rng, nlive=200)
    assert set(draws[:, 0]) == {0, 1}
    assert abs(draws[:, 0].mean() - truth) < 4 * math.sqrt(truth * (1 - truth) / 300)
    assert abs(info.log_evidence - logsumexp(joint)) < 4 * info.log_evidence_error
    draws, info = nuts(likelihood, prior, 1000, rng)
    assert set(draws[:, 0]) == {0, 1}
    assert abs(draws[:, 0].mean() - truth) < 4 * math.sqrt(truth * (1 - truth) / 300)
    assert np.isnan(info.r_hat[0])
    assert info.r_hat[1] < 1.05


def test_dynesty_options_pass_through_and_its_results_come_back():
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"nlive": 40, "bound": "single", "dlogz": 1.0, "maxiter": 300}
    _, info = nested(model, model.prior, 10, rng, **options)
    assert info.results.nlive == 40
    assert info.results.niter <= 300
    _, info = nested(model, model.prior, 10, rng, nlive=40, dynamic=True, maxbatch=0)
    assert abs(info.log_evidence - model.log_evidence) < 4 * info.log_evidence_error
    with pytest.raises(TypeError, match="no_such_option"):
        nested(model, model.prior, 10, rng, no_such_option=1)


def test_too_few_live_points_for_the_draws_are_reported():
    model = LinearGaussian()
    with pytest.warns(UserWarning, match="Raise nlive"):
        nested(model, model.prior, 5000, np.random.default_rng(0), nlive=40)


def test_a_run_resumes_from_its_checkpoint(tmp_path):
    model, path = LinearGaussian(), tmp_path / "run.save"
    options = {"nlive": 60, "checkpoint_file": path, "checkpoint_every": 0}
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="stopped short"):
        _, part = nested(model, model.prior, 1, rng, maxiter=60, add_live=False, **options)
    _, whole = nested(model, model.prior, 10, rng, resume=True, **options)
    assert whole.n_calls > part.n_calls
    np.testing.assert_array_equal(whole.results.logl[:50], part.results.logl[:50])
    assert abs(whole.log_evidence - model.log_evidence) < 4 * whole.log_evidence_error
    _, again = nested(model, model.prior, 10, rng, resume=True, **options)
    assert again.log_evidence == whole.log_evidence
    with pytest.raises(ValueError, match="belongs to another"):
        nested(LinearGaussian(seed=1), model.prior, 10, rng, resume=True, **options)


# ---- the pool


@pytest.mark.parametrize("size", [1, 3, 20])
def test_the_pool_maps_as_map_does_and_batches_the_calls(size):
    batches = []

    def square(rows):
        batches.append(len(rows))
        return (rows**2).sum(axis=1)

    function = Batched(square)

    def task(n):
        return sum(function(np.full(2, float(i))) for i in range(n))

    items = [4, 0, 7, 1, 2]
    together = max(sum(n > 0 for n in items[i : i + size]) for i in range(0, len(items), size))
    with BatchPool(size) as pool:
        found = pool.map(task, items)
    assert max(batches) == together
    assert found == [task(n) for n in items]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_errors_inside_the_pool_reach_the_caller_and_end_every_task(error):
    def fail(rows):
        raise error("inside")

    function, done = Batched(fail), []

    def task(i):
        try:
            return function(np.zeros(1))
        finally:
            done.append(i)

    with BatchPool(3) as pool, pytest.raises(error, match="inside"):
        pool.map(task, range(3))
    assert sorted(done) == [0, 1, 2]


# ---- importance sampling


class Off:
    """The posterior of a `LinearGaussian`, moved and scaled, as a proposal."""

    def __init__(self, model, shift=0.0, scale=1.0):
        sd = np.sqrt(np.diag(model.covariance))
        self.q = stats.multivariate_normal(model.mean + shift * sd, scale**2 * model.covariance)

    def sample(self, n, rng):
        return self.q.rvs(n, random_state=rng)

    def log_prob(self, theta):
        return self.q.logpdf(theta)


@pytest.mark.parametrize("off", [{}, {"shift": 0.7}, {"scale": 1.5}, {"shift": -0.5, "scale": 0.9}])
def test_reweighting_corrects_a_proposal_and_knows_the_evidence(off):
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"proposal": Off(model, **off), "n_proposals": 20_000}
    draws, info = importance(model, model.prior, 1000, rng, **options)
    assert abs(info.log_evidence - model.log_evidence) < 4 * info.log_evidence_error
    assert info.log_evidence_error == pytest.approx(np.sqrt(1 / info.ess[0] - 1 / 20_000))
    assert info.pareto_k < 0.7
    error = (draws.mean(axis=0) - model.mean) / np.sqrt(np.diag(model.covariance) / 1000)
    assert np.abs(error).max() < 4
    np.testing.assert_allclose(np.cov(draws.T), model.covariance, rtol=0.15)


def test_without_a_misfit_every_proposal_counts():
    """Nearly: one in twenty comes from the prior, where the likelihood is small."""
    model, rng = LinearGaussian(), np.random.default_rng(0)
    options = {"proposal": Off(model), "n_proposals": 10_000}
    _, info = importance(model, model.prior, 100, rng, **options)
    assert 9_000 < info.ess[0] <= 9_600


def test_a_proposal_that_misses_the_posterior_is_reported():
    model, rng = LinearGaussian(noise=0.05), np.random.default_rng(0)
    both = "misses too much of the posterior|Raise n_proposals"
    with pytest.warns(UserWarning, match=both) as caught:
        _, info = importance(model, model.prior, 500, rng, proposal=Off(model, shift=9))
    assert len(caught) == 2
    assert info.pareto_k > 0.7


@pytest.mark.parametrize("k", [0.2, 0.6, 1.2])
def test_the_tail_index_of_pareto_weights_is_found(k):
    rng = np.random.default_rng(0)
    found = [pareto_smoothed(k * rng.standard_exponential(10_000))[1] for _ in range(20)]
    assert abs(np.mean(found) - k) < 0.1  # each has a standard error of about 0.1


def test_smoothing_changes_the_largest_weights_only_and_keeps_their_order():
    log_weights = np.random.default_rng(0).normal(size=1000)
    smooth, _ = pareto_smoothed(log_weights)
    order = np.argsort(log_weights)
    np.testing.assert_array_equal(smooth[order[:-95]], log_weights[order[:-95]])
    assert (np.diff(smooth[order]) >= 0).all()
    assert smooth.max() <= log_weights.max()
    for equal in (np.zeros(100), np.zeros(3)):
        same, k = pareto_smoothed(equal)
        np.testing.assert_array_equal(same, equal)
        assert math.isnan(k)


def test_light_tails_are_not_smoothed():
    """Weights of a narrow Gaussian, and of a likelihood that is mostly zero."""
    theta = np.random.default_rng(0).normal(size=5000)
    for log_weights in (-0.5 * (theta / 0.02) ** 2, np.where(abs(theta) < 0.02, theta, -np.inf)):
        smooth, k = pareto_smoothed(log_weights)
        np.testing.assert_array_equal(smooth, log_weights)
        assert k < 0.5


def test_proposals_without_any_likelihood_are_an_error():
    model, rng = LinearGaussian(), np.random.default_rng(0)

    def nowhere(theta):
        return np.full(len(theta), -np.inf)

    with pytest.raises(ValueError, match="likelihood above zero"):
        importance(nowhere, model.prior, 10, rng, proposal=Off(model))


def test_chains_need_a_warm_up():
    model, rng = LinearGaussian(), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"n_warmup >= 10, to adapt; got 8 and 1\."):
        nuts(model, model.prior, 10, rng, n_warmup=1)


# ---- enumeration


def test_enumeration_is_bayes_rule():
    """Poisson(4) events, each seen with probability 0.3: the unseen ones are Poisson(2.8)."""
    prior = JointPrior({"n": stats.poisson(4)})
    seen, rng = 2, np.random.default_rng(0)

    def log_likelihood(theta):
        return stats.binom.logpmf(seen, theta[:, 0], 0.3)

    draws, info = enumerate_all(log_likelihood, prior, 20_000, rng)
    counts = np.bincount(draws[:, 0].astype(int) - seen, minlength=20)[:8]
    expected = 20_000 * stats.poisson(2.8).pmf(np.arange(8))
    assert stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), 8) > 1e-3
    assert info.log_evidence == pytest.approx(stats.poisson(1.2).logpmf(seen))


def test_what_cannot_be_enumerated_says_so():
    def flat(theta):
        return np.zeros(len(theta))

    rng = np.random.default_rng(0)
    coin = stats.bernoulli(0.5)
    with pytest.raises(ValueError, match=r"'a'.*cannot be enumerated"):
        enumerate_all(flat, JointPrior({"k": coin, "a": stats.norm()}), 1, rng)
    with pytest.raises(ValueError, match="combinations"):
        enumerate_all(flat, JointPrior({c: stats.randint(0, 100) for c in "abc"}), 1, rng)
    with pytest.raises(ValueError, match="enumerate"):
        nested(flat, JointPrior({"k": coin}), 1, rng)
    with pytest.raises(ValueError, match="enumerate"):
        nuts(flat, JointPrior({"k": coin}), 1, rng)
    with pytest.raises(ValueError, match="combinations"):
        nuts(flat, JointPrior({"k": stats.randint(0, 100), "a": stats.norm()}), 1, rng)


# ---- gradients


@pytest.mark.parametrize("p", [1, 3, 10])
def test_nuts_finds_the_moments_of_a_gaussian(p):
    model = LinearGaussian(p=p, d=p + 2, seed=p)
    draws, info = nuts(model, model.prior, 3000, np.random.default_rng(0))
    sd = np.sqrt(np.diag(model.covariance))
    assert np.abs((draws.mean(axis=0) - model.mean) / sd).max() < 5 / math.sqrt(info.ess.min())
    whitened = np.linalg.solve(np.linalg.cholesky(model.covariance), (draws - model.mean).T)
    # the square of a normal has sd sqrt(2); its draws are worth at least a third of those of x
    np.testing.assert_allclose((whitened**2).mean(axis=1), 1, atol=5 * math.sqrt(2 / 1000))


def test_nuts_leaves_a_skewed_target_as_it_is():
    """exp(z) ~ Gamma(2): quantiles of the draws follow the exact distribution."""
    likelihood = Given(  # the sampler multiplies by the prior N(0, 1): divide by it
        lambda z: (2 * z - np.exp(z) + z**2 / 2).sum(axis=1), lambda z: 2 - np.exp(z) + z
    )
    prior = JointPrior({"z": stats.norm()})
    draws, info = nuts(likelihood, prior, 2000, np.random.default_rng(0))
    share = stats.gamma(2).cdf(np.exp(draws[:, 0]))
    n = int(min(info.ess[0], 2000))
    assert stats.kstest(share[:: math.ceil(2000 / n)], "uniform").pvalue > 1e-3


def test_chains_that_disagree_are_reported():
    """Two narrow modes 20 sd apart: chains cannot cross."""

    def residual(z):
        return (z - np.where(z > 0, 1, -1)) / 0.05

    likelihood = Given(
        lambda z: -0.5 * (residual(z) ** 2).sum(axis=1), lambda z: -residual(z) / 0.05
    )
    prior = JointPrior({"z": stats.norm()})
    with pytest.warns(UserWarning, match=r"not converged: R-hat .*'nested'"):
        nuts(likelihood, prior, 500, np.random.default_rng(0))


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


def test_samplers_are_quiet_and_repeat(capsys):
    model = LinearGaussian()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = [
            (
                nested(model, model.prior, 50, np.random.default_rng(1), nlive=60)[0],
                nuts(model, model.prior, 50, np.random.default_rng(1))[0],
            )
            for _ in range(2)
        ]
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)
    assert capsys.readouterr() == ("", "")
