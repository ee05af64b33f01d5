"""FMPE against closed forms, quadrature and its own density."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
import torch
from scipy import stats

import skbi
from skbi import DoubleMoonSimulator, FMPEEstimator, JointPrior, coverage_score, simulate
from skbi.estimators import fmpe as module
from skbi.priors import from_normal

QUICK = {"max_iter": 3, "hidden_layer_sizes": (16, 16), "random_state": 0}
START = {"max_iter": 1, "learning_rate_init": 1e-9, "hidden_layer_sizes": (4,), "random_state": 0}


def linear_gaussian(p, n, seed=0):
    """Pairs of theta ~ N(0, I) and noisy mixtures of it, with means and covariance."""
    rng = np.random.default_rng([seed, p])
    mix = np.random.default_rng(p).normal(size=(p, p)) / np.sqrt(p) + np.eye(p)
    theta = rng.normal(size=(n, p))
    X = theta @ mix + 0.5 * rng.normal(size=(n, p))
    covariance = np.linalg.inv(np.eye(p) + mix @ mix.T / 0.5**2)
    return theta, X, X @ mix.T @ covariance / 0.5**2, covariance


# ---- where it starts


@pytest.mark.parametrize("prior", [None, JointPrior({f"m{j}": stats.norm() for j in range(5)})])
def test_it_starts_at_the_gaussian_posterior_of_a_linear_problem(prior):
    theta, X, *_ = linear_gaussian(5, 5000)
    fresh, X_obs, mean, covariance = linear_gaussian(5, 20, seed=1)
    fmpe = FMPEEstimator(prior=prior, **START).fit(theta, X)
    draws = fmpe.sample_posterior(X_obs, 4000)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=0.15 * sd.max())
    centred = (draws - draws.mean(axis=1, keepdims=True)).reshape(-1, 5)
    np.testing.assert_allclose(np.cov(centred.T), covariance, atol=0.05 * sd.max() ** 2)
    exact = stats.multivariate_normal(np.zeros(5), covariance).logpdf(fresh - mean)
    np.testing.assert_allclose(fmpe.log_prob(fresh, X_obs), exact, atol=0.3)
    assert fmpe.n_steps_ == 4  # nothing moves


def test_it_starts_at_the_moments_of_sets():
    theta = stats.norm.rvs(size=(3000, 1), random_state=0)
    X = theta[:, None] + np.random.default_rng(1).normal(size=(3000, 4, 1))
    fmpe = FMPEEstimator(**START).fit(theta, X)
    draws = fmpe.sample_posterior(X[:5], 4000)
    np.testing.assert_allclose(draws.mean(axis=(1, 2)), X[:5, :, 0].mean(axis=1) * 0.8, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=(1, 2)), 0.2**0.5, rtol=0.1)


# ---- densities


PRIORS = {
    "none": None,
    "normal": JointPrior({"a": stats.norm(2, 3)}),
    "uniform": JointPrior({"a": stats.uniform(-1, 3)}),
    "half-normal": JointPrior({"a": stats.halfnorm(scale=2)}),
    "log-normal": JointPrior({"a": stats.lognorm(0.7)}),
    "two": JointPrior({"a": stats.uniform(0, 1), "b": stats.gamma(3)}),
}
GRIDS = {1: 1500, 2: 200}


def fitted_under(prior, n=1500):
    """Return an estimator whose posteriors are no Gaussians, and an observation."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(n, 1)) if prior is None else prior.sample(n, random_state=0)
    X = np.abs(theta - theta.mean(axis=0)) + 0.3 * theta.std() * rng.normal(size=theta.shape)
    return FMPEEstimator(prior=prior, **{**QUICK, "max_iter": 15}).fit(theta, X), theta, X[3]


@pytest.mark.parametrize("case", PRIORS)
def test_densities_integrate_to_one_and_draws_follow_them(case):
    fmpe, theta, x = fitted_under(PRIORS[case])
    p = theta.shape[1]
    draws = fmpe.sample_posterior(x, 4000)
    even = np.tile(np.linspace(-8, 8, GRIDS[p] + 1)[:, None], p)
    edges = even if PRIORS[case] is None else from_normal(PRIORS[case], even)  # dense at bounds
    assert (draws > edges[0]).all()
    assert (draws < edges[-1]).all()
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges, axis=0)
    grid = np.stack(np.meshgrid(*centres.T, indexing="ij"), axis=-1).reshape(-1, p)
    cells = np.stack(np.meshgrid(*widths.T, indexing="ij"), axis=-1).prod(axis=-1)
    mass = np.exp(fmpe.log_prob(grid, x)).reshape(cells.shape) * cells
    assert mass.sum() == pytest.approx(1, abs=1e-2)
    for j in range(p):
        marginal = mass.sum(axis=tuple(k for k in range(p) if k != j)).cumsum()
        found = np.searchsorted(np.sort(draws[:, j]), edges[1:, j]) / len(draws)
        assert np.abs(found - marginal).max() < 0.04  # 4,000 draws: 1.5 / 63 in a bad case


def test_beyond_a_number_of_parameters_the_error_of_a_density_is_told(monkeypatch):
    theta, X, *_ = linear_gaussian(4, 800)
    fmpe = FMPEEstimator(**{**QUICK, "max_iter": 10}).fit(theta, np.abs(X))
    exact = fmpe.log_prob(theta[:200], np.abs(X[:200]))
    assert (fmpe.log_prob_error(theta[:200], np.abs(X[:200])) == 0).all()
    monkeypatch.setattr(module, "_MAX_EXACT", 3)
    found = fmpe.log_prob(theta[:200], np.abs(X[:200]))
    error = fmpe.log_prob_error(theta[:200], np.abs(X[:200]))
    assert (error > 0).all()
    assert np.sqrt((((found - exact) / error) ** 2).mean()) < 4  # all pairs have the same vectors
    np.testing.assert_array_equal(found, fmpe.log_prob(theta[:200], np.abs(X[:200])))


# ---- steps


def test_steps_are_as_many_as_densities_need():
    theta = stats.norm.rvs(size=(2000, 1), random_state=0)
    X = np.abs(theta) + 0.05 * np.random.default_rng(1).normal(size=theta.shape)  # two narrow modes
    fmpe = FMPEEstimator(**{**QUICK, "max_iter": 15}).fit(theta, X)
    assert fmpe.n_steps_ > 4
    auto = fmpe.log_prob(theta[:200], X[:200])
    fine = copy.deepcopy(fmpe)
    fine.n_steps_ = 128
    assert np.sqrt(((fine.log_prob(theta[:200], X[:200]) - auto) ** 2).mean()) < 0.1
    assert not np.array_equal(fine.sample_posterior(X[0], 5), fmpe.sample_posterior(X[0], 5))


# ---- ensembles, files and continuing


def test_an_ensemble_has_one_density_and_is_not_worse_than_its_members():
    theta, X, *_ = linear_gaussian(2, 600)
    fmpe = FMPEEstimator(n_estimators=3, **QUICK).fit(theta, np.abs(X))
    alone = []
    for i in range(3):
        one = copy.deepcopy(fmpe)
        one.members_ = [fmpe.members_[i]]
        alone.append(one.score(theta, np.abs(X)))
    assert fmpe.score(theta, np.abs(X)) > min(alone)
    assert fmpe.best_validation_score_ < 0


def test_a_pickle_and_a_skops_file_draw_the_same(tmp_path):
    theta = PRIORS["two"].sample(100, random_state=0)
    X = theta + np.random.default_rng(0).normal(size=theta.shape)
    fmpe = FMPEEstimator(prior=PRIORS["two"], **QUICK).fit(theta, X)
    draws = fmpe.sample_posterior(X[:3], 10)
    skops.io.dump(fmpe, tmp_path / "fmpe.skops")
    opened = skops.io.load(tmp_path / "fmpe.skops", trusted=skbi.TRUSTED_TYPES)
    for twin in (pickle.loads(pickle.dumps(fmpe)), opened):
        np.testing.assert_array_equal(twin.sample_posterior(X[:3], 10), draws)
        np.testing.assert_array_equal(twin.log_prob(theta, X), fmpe.log_prob(theta, X))


def test_it_goes_on_where_it_stopped_with_more_members_of_the_same_residuals():
    theta, X, *_ = linear_gaussian(2, 300)
    fmpe = FMPEEstimator(warm_start=True, **QUICK).fit(theta, X)
    more = copy.deepcopy(fmpe).set_params(n_estimators=3).fit(2 * theta, X)
    assert len(more.loss_curve_) == fmpe.n_iter_ + more.n_iter_
    for member in more.members_:
        torch.testing.assert_close(member.root, fmpe.members_[0].root)


def test_weights_are_those_of_another_prior():
    """Pairs of a wide proposal, weighted to a narrow prior."""
    rng = np.random.default_rng(0)
    theta = 2 * rng.normal(size=(6000, 1))
    X = theta + rng.normal(size=(6000, 1))
    weights = stats.norm.pdf(theta[:, 0]) / stats.norm.pdf(theta[:, 0], scale=2)
    options = {**QUICK, "max_iter": 20, "learning_rate_init": 1e-2}
    draws = FMPEEstimator(**options).fit(theta, X, weights).sample_posterior(np.array([1.0]), 4000)
    assert draws.mean() == pytest.approx(0.5, abs=0.12)
    assert draws.std() == pytest.approx(0.5**0.5, abs=0.12)


# ---- many observations, calibration, modules


def test_ragged_sets_are_read_and_calibrated_alike_for_any_number_of_jobs():
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=(3, 9))
    theta, X = simulate(prior, simulator, 200, random_state=0)
    fmpe = FMPEEstimator(prior=prior, **QUICK).fit(theta, X)
    together = fmpe.log_prob(theta[:6], X[:6])
    alone = [fmpe.log_prob(t[None], x)[0] for t, x in zip(theta[:6], X[:6], strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    scores = [
        coverage_score(fmpe, theta, X, n_samples=20, n_jobs=n, random_state=0) for n in (None, 2)
    ]
    assert scores[0] == scores[1]


def test_a_module_of_ones_own_is_trained():
    theta, X, *_ = linear_gaussian(2, 300)
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh())
    fmpe = FMPEEstimator(summary=net, **QUICK).fit(theta, X)
    assert not torch.equal(fmpe.summary_net_[0].weight, net[0].weight)
    assert np.isfinite(fmpe.log_prob(theta, X)).all()
    assert fmpe.sample_posterior(X[:2], 5).shape == (2, 5, 2)


def test_missing_entries_are_told():
    theta, X, *_ = linear_gaussian(2, 400)
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    fmpe = FMPEEstimator(missing="mask", **QUICK).fit(theta, X)
    assert np.isfinite(fmpe.log_prob(theta, X)).all()
