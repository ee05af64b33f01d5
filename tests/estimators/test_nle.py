"""NLE against closed forms, quadrature, its own density and Bayes' rule."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from scipy import stats
from scipy.special import logsumexp

from skbi import JointPrior, NLEEstimator, NPEEstimator, misspecification_score
from skbi.samplers.info import SamplerInfo
from skbi.samplers.registry import Sampler
from skbi.training.ensemble import Ensemble

pytestmark = pytest.mark.filterwarnings("ignore:flow='realnvp' needs at least 2 variables")

QUICK = {"max_iter": 3, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}
PRIOR = JointPrior({"k": stats.bernoulli(0.4), "mu": stats.norm(0, 2), "s": stats.expon()})
SHORT = {"n_particles": 64}
NESTED = {"sampler": "nested", "nlive": 60, "bootstrap": 0, "dlogz": 1}  # it warns of nothing
MEDIANS = Sampler(
    "medians",
    lambda likelihood, prior, n, *_, **options: (
        prior.ppf(np.full((n, len(prior.names)), 0.5)),
        SamplerInfo("medians", 0),
    ),
)  # for what is said before sampling starts
flows = pytest.mark.parametrize("flow", ["spline", "realnvp"])


def points(n=400, d=2, seed=0):
    """Pairs: d features around mu + k, with scale 0.2 + s."""
    theta = PRIOR.sample(n, random_state=seed)
    k, mu, s = theta.T[:, :, None]
    return theta, mu + k + (0.2 + s) * np.random.default_rng([seed, 1]).normal(size=(n, d))


def ragged(n=40, seed=0, low=1):
    rng = np.random.default_rng([seed, 1])
    theta = PRIOR.sample(n, random_state=seed)
    X = np.empty(n, dtype=object)
    X[:] = [mu + (0.2 + s) * rng.normal(size=(rng.integers(low, 9), 2)) for _, mu, s in theta]
    return theta, X


@pytest.fixture(scope="module")
def fitted():
    return NLEEstimator(prior=PRIOR, **QUICK).fit(*points())


@pytest.fixture(scope="module")
def coin():
    """Fit with two parameters, for posteriors that are quickly sampled."""
    prior = JointPrior({name: PRIOR.marginals[name] for name in ("k", "mu")})
    theta, X = points()
    return NLEEstimator(prior=prior, **QUICK).fit(theta[:, :2], X)


# ---- the density


@flows
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("n_estimators", [1, 2])
def test_the_likelihood_integrates_to_one_over_the_data(d, n_estimators, flow):
    nle = NLEEstimator(prior=PRIOR, flow=flow, n_estimators=n_estimators, **QUICK)
    theta, X = points(d=d)
    nle.fit(theta, X)
    u = np.linspace(-6, 6, 2001 if d == 1 else 301)  # x = 3 sinh(u): the tails are Gaussian
    x, weight = 3 * np.sinh(u), 3 * np.cosh(u) * (u[1] - u[0])
    grid = np.stack(np.meshgrid(*[x] * d), axis=-1).reshape(-1, d)
    weights = np.prod(np.stack(np.meshgrid(*[weight] * d), axis=-1).reshape(-1, d), axis=1)
    for row in theta[:3]:
        total = (np.exp(nle.log_prob(row[None], grid)) * weights).sum()
        assert total == pytest.approx(1, abs=5e-3)


@flows
@pytest.mark.parametrize("n_estimators", [1, 2])
def test_simulated_points_follow_the_density(n_estimators, flow):
    nle = NLEEstimator(prior=PRIOR, flow=flow, n_estimators=n_estimators, **QUICK)
    theta, X = points(d=1)
    nle.fit(theta, X)
    draws = nle.sample_likelihood(theta[:2], 2000)
    assert draws.shape == (2, 2000, 1)
    grid = np.linspace(draws.min() - 1, draws.max() + 1, 20_001)
    for row, x in zip(theta[:2], draws[:, :, 0], strict=True):
        cdf = np.exp(nle.log_prob(row[None], grid[:, None])).cumsum() * (grid[1] - grid[0])
        assert stats.kstest(np.interp(x, grid, cdf), "uniform").pvalue > 1e-3


def over_decades(n=2000, seed=0):
    """Pairs: a positive feature over ten decades, and one that is not heavy-tailed."""
    prior = JointPrior({"mu": stats.norm()})
    theta = prior.sample(n, random_state=seed)
    noise = np.random.default_rng([seed, 1]).normal(size=(n, 2))
    return prior, theta, np.hstack([np.exp(5 * theta + noise[:, :1]), theta + noise[:, 1:]])


def test_a_positive_feature_of_heavy_tails_is_learnt_as_its_logarithm():
    prior, theta, X = over_decades()
    nle = NLEEstimator(prior=prior, random_state=0, max_iter=20).fit(theta, X)
    _, theta, X = over_decades(seed=1)
    exact = stats.norm.logpdf(np.log(X[:, 0]), 5 * theta[:, 0]) - np.log(X[:, 0])
    exact += stats.norm.logpdf(X[:, 1], theta[:, 0])
    assert 0 < (exact - nle.log_prob(theta, X)).mean() < 0.15
    np.testing.assert_array_equal(nle.log_prob(theta[:2], [[0.0, 1.0], [-1.0, 1.0]]), -np.inf)
    likelihood = nle._likelihoods(nle._check_observations(X[None, :5])[0], prior)[0]
    value, _ = likelihood.value_and_gradient(prior.to_normal(theta[:3]))
    one_by_one = [nle.log_prob(row[None], X[:5]).sum() for row in theta[:3]]
    np.testing.assert_allclose(value, one_by_one, rtol=1e-4)
    drawn = nle.sample_likelihood([[0.5]], 1000, random_state=0)[0]
    assert (drawn[:, 0] > 0).all()
    assert stats.kstest(np.log(drawn[:, 0]), stats.norm(2.5, 1).cdf).pvalue > 0.001
    np.testing.assert_array_equal(nle.log_features_, [True, False])
    assert misspecification_score(nle, np.array([0.0, 1.0])) == 0
    with pytest.warns(UserWarning, match=r"impossible: features \[0\] were positive"):
        nle.sample_posterior([[0.0, 1.0]], 10, **SHORT)
    nle.set_params(warm_start=True)
    with pytest.raises(ValueError, match=r"Features \[0\] were learnt as their logarithm"):
        nle.fit(theta, X - [[1.0, 0.0]])
    with pytest.raises(ValueError, match="with the same dequantize"):
        nle.set_params(dequantize=1.0).fit(theta, X)


def test_counts_over_decades_are_learnt_as_their_logarithm():
    prior = JointPrior({"log_rate": stats.norm(0, 3)})
    theta = prior.sample(5000, random_state=0)
    X = np.random.default_rng(1).poisson(np.exp(theta)).astype(float)
    nle = NLEEstimator(prior=prior, dequantize=1, max_iter=20, random_state=0).fit(theta, X)
    assert nle.log_features_.tolist() == [True]
    x = np.arange(400)[:, None]
    for log_rate in (-1.0, 1.0, 4.0):
        mass = np.exp(nle.log_prob([[log_rate]], x))
        assert mass.sum() == pytest.approx(1, abs=0.05)  # at the counts, of a density between them
        assert np.abs(mass - stats.poisson.pmf(x[:, 0], np.exp(log_rate))).sum() < 0.2


def test_the_likelihood_of_a_logarithm_integrates_to_one_over_the_data():
    prior, theta, X = over_decades(400)
    nle = NLEEstimator(prior=prior, **QUICK).fit(theta, X[:, :1])
    x = np.exp(np.linspace(-80, 80, 4001))
    for row in theta[:3]:
        density = np.exp(nle.log_prob(row[None], x[:, None]))
        assert np.trapezoid(density * x, np.log(x)) == pytest.approx(1, abs=5e-3)


def test_a_feature_with_noise_of_its_own_is_not_learnt_as_its_logarithm():
    prior, theta, X = over_decades(200)
    X[:, 0] = np.ceil(X[:, 0])
    nle = NLEEstimator(prior=prior, dequantize=[1, 0], **QUICK).fit(theta, X)
    assert np.isfinite(nle.log_prob(theta[:1], [[0.0, 1.0]])).all()


def test_a_set_is_the_sum_of_its_points_in_any_layout(fitted):
    theta, X = ragged()
    expected = [
        fitted.log_prob(np.tile(t, (len(x), 1)), x).sum() for t, x in zip(theta, X, strict=True)
    ]
    padded = np.full((len(X), 12, 2), np.nan)
    for row, x in zip(padded, X, strict=True):
        row[3 : 3 + len(x)] = x[::-1]
    for layout in (X, list(X), padded):
        np.testing.assert_allclose(fitted.log_prob(theta, layout), expected, rtol=1e-9)


def test_one_theta_or_one_observation_stands_for_all(fitted):
    theta, X = ragged()
    np.testing.assert_allclose(
        fitted.log_prob(theta, X[3][None]), fitted.log_prob(theta, [X[3]] * len(theta)), rtol=1e-9
    )
    np.testing.assert_allclose(
        fitted.log_prob(theta[:1], X), fitted.log_prob(np.tile(theta[0], (len(X), 1)), X), rtol=1e-9
    )
    np.testing.assert_allclose(
        fitted.log_prob(theta, X[0][0]), fitted.log_prob(theta, X[0][:1]), rtol=1e-9
    )
    with pytest.raises(ValueError, match="paired row by row"):
        fitted.log_prob(theta[:3], X)


def test_one_theta_is_embedded_once_and_many_are_one_batch(fitted, monkeypatch):
    seen = []
    kind = type(fitted.members_[0])
    embed = kind.embed_parameters
    monkeypatch.setattr(
        kind, "embed_parameters", lambda self, z: seen.append(len(z)) or embed(self, z)
    )
    theta, X = points(50)
    n_active = len(Ensemble(fitted.members_).active().members)
    fitted.log_prob(theta[:1], X[None])
    assert seen == n_active * [1]
    fitted._likelihoods(fitted._check_observations(X[None])[0], PRIOR)[0](theta)
    assert seen == n_active * [1] + n_active * [50]


def test_outside_the_prior_there_is_no_likelihood(fitted):
    theta = [[0.5, 0, 1], [0, 0, -1], [0, 0, 1]]
    assert np.isneginf(fitted.log_prob(theta, np.zeros((3, 2)))).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="row 0"):
        fitted.sample_likelihood(theta)


def test_without_a_prior_the_likelihood_is_learnt_all_the_same():
    theta, X = points()
    nle = NLEEstimator(**QUICK).fit(theta, X)
    assert np.isfinite(nle.log_prob(theta, X)).all()
    with pytest.raises(ValueError, match="needs a prior"):
        nle.sample_posterior(X[:1])
    assert nle.set_params(prior=PRIOR).sample_posterior(X[0], 20, **SHORT).shape == (20, 3)


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("change", [False, True])
def test_the_gradient_is_that_of_the_likelihood(change, n_estimators):
    nle = NLEEstimator(prior=PRIOR, n_estimators=n_estimators, **QUICK)
    theta, X = points()
    nle.fit(theta, X)
    nle.members_ = [member.double() for member in nle.members_]
    prior = PRIOR
    if change:
        other = {"k": stats.bernoulli(0.5), "mu": stats.uniform(-9, 18), "s": stats.gamma(2)}
        prior = JointPrior(other)
    likelihood = nle._likelihoods(nle._check_observations(X[None])[0], prior)[0]
    z = prior.to_normal(theta[:4])
    value, gradient = likelihood.value_and_gradient(z)
    np.testing.assert_allclose(value, likelihood(theta[:4]), rtol=1e-6)
    for j in (1, 2):
        step = 1e-6 * np.eye(3)[j]  # short: the ends of a spline are kinks
        slope = (
            likelihood(prior.from_normal(z + step)) - likelihood(prior.from_normal(z - step))
        ) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-3, atol=1e-2)


# ---- training


def test_training_on_sets_reads_their_points_and_splits_by_pair():
    theta, X = ragged(100)
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    owners = nle._owners(nle._check_observations(X)[0])
    assert owners.tolist() == [i for i, x in enumerate(X) for _ in x]
    assert nle.log_prob(theta, X).shape == (100,)
    assert nle.sample_posterior(X[0], 20, **SHORT).shape == (20, 3)  # 2-D is one set here


def test_the_prior_of_the_pairs_does_not_matter():
    """The same likelihood from two proposals: posteriors under one prior agree with the exact."""
    X_obs = np.array([[0.7], [0.9], [0.4]])
    precision = 1 + 3 / 0.5**2
    mean, sd = X_obs.sum() / 0.5**2 / precision, precision**-0.5
    grid = np.linspace(-2, 3, 301)
    for proposal in (stats.norm(0, 1), stats.uniform(-3, 6)):
        theta = proposal.rvs((3000, 1), random_state=0)
        X = theta + 0.5 * np.random.default_rng(1).normal(size=theta.shape)
        nle = NLEEstimator(max_iter=15, random_state=0).fit(theta, X)
        log_joint = nle.log_prob(grid[:, None], X_obs[None]) + stats.norm.logpdf(grid)
        weights = np.exp(log_joint - logsumexp(log_joint))
        learnt = weights @ grid
        assert abs(learnt - mean) / sd < 0.3  # each of the three points' errors enters
        assert math.sqrt(weights @ (grid - learnt) ** 2) / sd == pytest.approx(1, abs=0.15)


def test_a_prior_beyond_that_of_fit_is_refused_and_its_tail_cut_off():
    prior = JointPrior({"mu": stats.uniform(0, 1)})
    theta = prior.sample(3000, random_state=0)
    X = theta + 0.1 * np.random.default_rng(1).normal(size=theta.shape)
    nle = NLEEstimator(prior=prior, max_iter=10, random_state=0).fit(theta, X)
    X_obs = np.array([[0.93], [1.05], [0.98], [1.01]])
    narrow = stats.norm(0.5, 0.18)  # of which 0.3 % lie above 1
    grid = np.linspace(0, 1, 1001)
    log_joint = narrow.logpdf(grid) + stats.norm(grid, 0.1).logpdf(X_obs).sum(axis=0)
    weights = np.exp(log_joint - logsumexp(log_joint))
    mean = weights @ grid
    sd = math.sqrt(weights @ (grid - mean) ** 2)
    nle.set_params(prior=JointPrior({"mu": narrow}))
    for sampler, options in (("nested", {"nlive": 100}), ("smc", {})):
        draws = nle.sample_posterior(X_obs[None], 300, sampler=sampler, **options)
        assert draws.max() < 1
        assert abs(draws.mean() - mean) < 0.3 * sd
    with pytest.raises(ValueError, match=r"lies outside the prior of fit.*prior=None"):
        nle.set_params(prior=JointPrior({"mu": stats.uniform(0, 3)})).log_evidence(X_obs[None])


def test_warm_start_goes_on_where_a_round_has_settled_a_parameter():
    theta, X = points()
    nle = NLEEstimator(prior=PRIOR, warm_start=True, **QUICK).fit(theta, X)
    one = theta[:, 0] == 1
    before = nle.score(theta[one], X[one])
    nle.set_params(max_iter=15).fit(theta[one], X[one])
    assert nle.score(theta[one], X[one]) > before
    with pytest.raises(ValueError, match="constant"):
        NLEEstimator(prior=PRIOR, **QUICK).fit(theta[one], X[one])


def test_the_loss_is_minus_the_score():
    theta, X = points(300)
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    held_out = np.random.default_rng(0).permutation(300)[:30]
    assert nle.score(theta[held_out], X[held_out]) == pytest.approx(
        nle.best_validation_score_, abs=1e-4
    )


def test_features_without_a_density_are_named():
    theta, X = points()
    cases = {
        r"Features \[1\] .* constant": np.column_stack([X[:, 0], np.full(len(X), 3.0)]),
        r"Features \[0, 2\] .* repeat": np.column_stack([X, 5 - 2 * X[:, 0]]),
        r"Features \[0, 1, 2\] .* repeat": np.column_stack([X, X.sum(axis=1)]),
    }
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta, X)
    score = nle.score(theta, X)
    for message, bad in cases.items():
        with pytest.raises(ValueError, match=message):
            nle.fit(theta, bad)
        NLEEstimator(prior=PRIOR, dequantize=0.1, **QUICK).fit(theta, bad)
    assert nle.score(theta, X) == score
    with pytest.raises(ValueError, match="dequantize must be"):
        NLEEstimator(dequantize=[1, 2, 3], **QUICK).fit(theta, X)


def test_counts_are_dequantized():
    """Poisson counts: the density at a count, with noise of width 1, is its probability."""
    rng = np.random.default_rng(0)
    prior = JointPrior({"rate": stats.uniform(1, 9)})
    theta = prior.sample(5000, random_state=0)
    X = rng.poisson(theta).astype(float)
    with pytest.warns(UserWarning, match="few distinct values"):
        NLEEstimator(**QUICK).fit(theta, X)
    nle = NLEEstimator(prior=prior, dequantize=1, max_iter=20, random_state=0).fit(theta, X)
    grid = np.arange(12.0)[:, None]
    learnt = np.exp(nle.log_prob([[4.0]], grid))
    assert np.abs(learnt - stats.poisson.pmf(grid[:, 0], 4)).max() < 0.05


# ---- posteriors


@pytest.fixture(scope="module")
def gaussian():
    """Learn a linear Gaussian model: theta (2,) -> x (2,), noise 0.6."""
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    theta = prior.sample(5000, random_state=0)
    X = theta @ [[1.0, 0.5], [0.0, 1.0]] + 0.6 * np.random.default_rng(1).normal(size=theta.shape)
    return NLEEstimator(prior=prior, max_iter=20, random_state=0).fit(theta, X)


def rough(nle):
    """Return an NPE that has hardly learnt the posterior given two points."""
    theta = nle.prior.sample(1000, random_state=2)
    X = nle.sample_likelihood(theta, 2, random_state=3)
    return NPEEstimator(prior=nle.prior, max_iter=3, random_state=0).fit(theta, X)


@pytest.mark.parametrize("sampler", ["nested", "nuts", "importance"])
def test_posterior_and_evidence_of_a_linear_gaussian(gaussian, sampler):
    mix = np.array([[1.0, 0.5], [0.0, 1.0]])
    x = np.array([[1.0, 0.3], [0.2, 1.4]])
    covariance = np.linalg.inv(np.eye(2) + len(x) * mix @ mix.T / 0.36)
    mean = x.sum(axis=0) @ mix.T @ covariance / 0.36
    options = {"nested": {"nlive": 200}, "nuts": {}, "importance": {"proposal": rough(gaussian)}}
    draws, info = gaussian.sample_posterior(
        x[None], 500, sampler=sampler, return_info=True, **options[sampler]
    )
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((draws[0].mean(axis=0) - mean) / sd).max() < 0.3
    np.testing.assert_allclose(draws[0].std(axis=0), sd, rtol=0.2)
    if sampler != "nuts":
        joint = np.kron(np.ones((2, 2)), mix.T @ mix) + 0.36 * np.eye(4)
        exact = stats.multivariate_normal(np.zeros(4), joint).logpdf(x.ravel())
        assert abs(info[0].log_evidence - exact) < 0.3


def test_a_posterior_is_refined_by_a_likelihood(gaussian):
    npe, X_obs = rough(gaussian), np.array([[[1.0, 0.3], [0.2, 1.4]], [[-1.0, 0.1], [0.0, -0.4]]])
    refined = npe.sample_posterior(X_obs, 200, refine=gaussian, random_state=1)
    options = {"sampler": "importance", "proposal": npe, "random_state": 1}
    np.testing.assert_array_equal(refined, gaussian.sample_posterior(X_obs, 200, **options))
    log_z, error = gaussian.log_evidence(X_obs, **options)
    nested, its_error = gaussian.log_evidence(X_obs, sampler="nested", nlive=60, random_state=0)
    assert (np.abs(log_z - nested) < 4 * np.hypot(error, its_error)).all()
    for wrong in (None, NPEEstimator(), gaussian.prior):
        with pytest.raises(ValueError, match="needs proposal=, a fitted NPEEstimator"):
            gaussian.sample_posterior(X_obs, sampler="importance", proposal=wrong)
    with pytest.raises(ValueError, match=r"'nuts' does not know the evidence: use one of .*nested"):
        gaussian.log_evidence(X_obs, sampler="nuts")


def test_model_probabilities_of_two_overlapping_simulators():
    """A coin m picks a normal or a Laplace simulator, both with known densities."""
    prior = JointPrior({"m": stats.bernoulli(0.5)})
    models = stats.norm(0, 1), stats.laplace(1, 1)
    theta = prior.sample(10_000, random_state=0)
    draws = np.stack([m.rvs((len(theta), 1), random_state=1 + i) for i, m in enumerate(models)])
    X = np.where(theta == 0, draws[0], draws[1])
    nle = NLEEstimator(prior=prior, max_iter=20, random_state=0).fit(theta, X)
    X_obs = np.random.default_rng(2).normal(0.5, 1.5, size=(100, 1))
    log_p = np.stack([m.logpdf(X_obs[:, 0]) for m in models])
    exact = np.exp(log_p[1] - logsumexp(log_p, axis=0))
    log_q = np.stack([nle.log_prob([[float(m)]], X_obs) for m in (0, 1)])
    assert np.abs(np.exp(log_q[1] - logsumexp(log_q, axis=0)) - exact).mean() < 0.03
    samples = nle.sample_posterior(X_obs, 2000)  # 2,000 draws add at most 0.011
    assert samples.shape == (100, 2000, 1)
    assert np.abs(samples.mean(axis=(1, 2)) - exact).mean() < 0.03
    log_z, _, infos = nle.log_evidence(X_obs, return_info=True)
    np.testing.assert_allclose(log_z, logsumexp(log_q, axis=0) - math.log(2), rtol=1e-4)
    assert all(info.log_evidence_error == 0 for info in infos)


@pytest.mark.parametrize("sampler", ["nested", "nuts"])
def test_neither_the_number_of_jobs_nor_the_backend_changes_anything(coin, sampler):
    rng = np.random.default_rng(0)
    size = 4 if sampler == "nested" else 500  # points; long sums are split among threads
    X = [rng.normal(size=(n, 2)) for n in (size, 4)]
    options = {"sampler": sampler, "random_state": 1}
    options |= NESTED if sampler == "nested" else {"n_warmup": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too short a run to converge
        one = coin.sample_posterior(X, 30, **options)
        assert one.shape == (2, 30, 2)
        for backend in ("loky", "threading"):
            with parallel_config(backend=backend, n_jobs=2):
                np.testing.assert_array_equal(coin.sample_posterior(X, 30, **options), one)
        alone = [coin.sample_posterior(X[:1], 30, n_jobs=n, **options) for n in (1, 2)]
        np.testing.assert_array_equal(*alone)


def test_the_random_state_decides_and_global_generators_are_untouched(coin):
    _, X = ragged(1, low=3)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    draws = [coin.sample_posterior(X, 20, **SHORT, random_state=s) for s in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


def test_copies_sample_alike(coin):
    _, X = ragged(1, low=3)
    expected = coin.sample_posterior(X, 20, **SHORT)
    for other in (copy.deepcopy(coin), pickle.loads(pickle.dumps(coin))):
        np.testing.assert_array_equal(other.sample_posterior(X, 20, **SHORT), expected)


def test_the_kinds_of_observation(coin):
    _, X = points(5)
    options = {"n_samples": 10, **SHORT}
    assert coin.sample_posterior(X[0], **options).shape == (10, 2)
    assert coin.sample_posterior(X[None], **options).shape == (1, 10, 2)
    with pytest.warns(UserWarning, match=r"2 single points.*X_obs\[None\]"):
        assert coin.sample_posterior(X[:2], 10, **NESTED).shape == (2, 10, 2)
    samples, info = coin.sample_posterior(X[0], 10, return_info=True, **NESTED)
    assert samples.shape == (10, 2)
    assert info.results.samples.shape[1] == 2
    log_z, error = coin.log_evidence(X[0], **SHORT)
    assert np.ndim(log_z) == 0
    assert error > 0


def test_every_observation_of_a_batch_has_its_checkpoint(coin, tmp_path):
    _, X = ragged(2, low=3)
    options = {**NESTED, "checkpoint_file": tmp_path / "run.save", "checkpoint_every": 0}
    first = coin.sample_posterior(X, 10, **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-0.save", "run-1.save"]
    again = coin.sample_posterior(X, 10, resume=True, **options)
    assert again.shape == first.shape
    with pytest.raises(ValueError, match="belongs to another"):
        coin.sample_posterior(X[::-1], 10, resume=True, **options)
    names = coin.prior.names
    other = JointPrior({**coin.prior.marginals, names[-1]: stats.uniform(0.25, 0.5)})
    narrower = copy.deepcopy(coin).set_params(prior=other)
    with pytest.raises(ValueError, match="belongs to another"):
        narrower.sample_posterior(X, 10, resume=True, **options)


def test_verbose_shows_progress(coin, capsys):
    _, X = points(5)
    loud = copy.deepcopy(coin).set_params(verbose=1)
    loud.sample_posterior(X[0], 10, **SHORT)
    assert "temperature" in capsys.readouterr().err
    coin.sample_posterior(X[0], 10, **SHORT)
    assert capsys.readouterr() == ("", "")


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_samples": 0}, "n_samples must be a positive integer"),
        ({"sampler": "gibbs"}, "'auto', 'enumerate', 'importance', 'nested', 'nuts'"),
        ({"X_obs": np.full((1, 3, 2), np.nan)}, "needs at least one point"),
        ({"X_obs": np.full((1, 2), np.nan)}, "missing values"),
        ({"X_obs": np.zeros((1, 3, 5))}, "5 features"),
    ],
)
def test_bad_requests_fail_before_sampling(fitted, options, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample_posterior(**{"X_obs": np.zeros((1, 3, 2)), **options})


def test_a_prior_of_another_width_is_refused(fitted):
    other = copy.deepcopy(fitted).set_params(prior=JointPrior({"mu": stats.norm()}))
    for method in (other.sample_posterior, other.log_evidence):
        with pytest.raises(ValueError, match=r"1 parameters \('mu',\).*learnt for 3"):
            method(np.zeros((1, 3, 2)))


@given(feature=st.integers(0, 1), sign=st.sampled_from([-1, 1]))
def test_data_beyond_the_training_points_are_reported(fitted, feature, sign):
    _, X = points()
    X_obs = X[None, :5].copy()
    edge = X[:, feature].max() if sign > 0 else X[:, feature].min()
    X_obs[0, 0, feature] = edge + 3 * sign * X[:, feature].std()
    with pytest.warns(UserWarning, match=rf"feature {feature} .* 3\.0 standard deviations"):
        fitted.sample_posterior(X_obs, sampler=MEDIANS)


def test_points_within_the_range_that_are_unlike_all_others_are_reported():
    """Two features that go together, one point where they do not."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(2000, 1))
    X = theta + [0, 0] + 0.01 * rng.normal(size=(2000, 2))
    prior = JointPrior({"mu": stats.norm()})
    nle = NLEEstimator(prior=prior, **QUICK).fit(theta, X)
    with pytest.warns(UserWarning, match="unlike the training simulations"):
        nle.sample_posterior(np.array([1.0, -1.0]), sampler=MEDIANS)
    untypical, typical = nle.typicality([[1.0, -1.0], [1.0, 1.0]])
    assert untypical < 1e-3 < typical


def test_draws_beyond_the_training_parameters_are_reported():
    """The pairs reach up to mu = 1, the observed point is at 3."""
    theta, X = points()
    low = theta[:, 1] < 1
    nle = NLEEstimator(prior=PRIOR, **QUICK).fit(theta[low], X[low])
    with pytest.warns(UserWarning, match=r"outside the range .*'mu'.* a guess"):
        nle.sample_posterior(np.array([3.0, 3.0]), 20, **SHORT)


def test_the_steps_of_a_markov_series_add_up_to_its_likelihood():
    """Next states given phi and the state: of a series, the posterior of phi is known."""
    rng = np.random.default_rng(0)
    phi, state = rng.uniform(-1, 1, (4000, 1)), rng.normal(size=(4000, 1))
    following = phi * state + 0.5 * rng.normal(size=(4000, 1))
    nle = NLEEstimator(max_iter=15, flow="realnvp", n_estimators=1, random_state=0)
    with pytest.warns(UserWarning, match="at least 2 variables"):
        nle.fit(np.hstack([phi, state]), following)
    x = [0.0]
    for noise in rng.normal(size=100):
        x.append(0.6 * x[-1] + 0.5 * noise)
    before, after = np.array(x[:-1]), np.array(x[1:])
    grid = np.linspace(-0.99, 0.99, 199)
    given = np.column_stack([np.repeat(grid, 100), np.tile(before, 199)])
    log_q = nle.log_prob(given, np.tile(after, 199)[:, None]).reshape(199, 100).sum(axis=1)
    log_p = stats.norm.logpdf(after, grid[:, None] * before, 0.5).sum(axis=1)
    q, p = (np.exp(a - a.max()) / np.exp(a - a.max()).sum() for a in (log_q, log_p))
    sd = np.sqrt(p @ grid**2 - (p @ grid) ** 2)
    # errors add up over the steps: of three series 0.43 sd and 12 % at most
    assert abs(q @ grid - p @ grid) < 0.75 * sd
    assert np.sqrt(q @ grid**2 - (q @ grid) ** 2) == pytest.approx(sd, rel=0.25)
