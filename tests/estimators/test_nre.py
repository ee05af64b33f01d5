"""NRE against closed forms: numbers, counts, categories, models, sets, rounds and files."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy import special, stats
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import skbi
from skbi import JointPrior, NREEstimator, coverage_score, sequential

QUICK = {"max_iter": 2, "hidden_layer_sizes": (8,), "random_state": 0}
SMALL = {"max_iter": 10, "hidden_layer_sizes": (16, 16), "n_estimators": 1, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore:.*of the draws lie outside the range")
PRIOR = JointPrior({"a": stats.norm(), "b": stats.norm(1, 2)})
NOISE = 0.5


def gaussian(n, seed=0, theta=None):
    """Pairs whose posterior is Gaussian."""
    theta = PRIOR.sample(n, random_state=seed) if theta is None else theta
    return theta, theta + NOISE * np.random.default_rng([seed, 1]).normal(size=theta.shape)


def exact_posterior(x, n_points=1):
    """Return means and standard deviations given the mean of some points."""
    mean, precision = np.array([0.0, 1.0]), np.array([1.0, 0.25])
    total = precision + n_points / NOISE**2
    return (mean * precision + n_points * x / NOISE**2) / total, total**-0.5


def exact_log_ratio(theta, x):
    evidence = stats.norm([0, 1], np.sqrt([1 + NOISE**2, 4 + NOISE**2]))
    return (stats.norm(theta, NOISE).logpdf(x) - evidence.logpdf(x)).sum(axis=1)


@pytest.fixture(scope="module")
def nre():
    return NREEstimator(prior=PRIOR, **SMALL).fit(*gaussian(2000))


# ---- what it learns


@pytest.mark.parametrize("options", [{}, {"loss": "nre-a"}, {"gamma": 3.0}, {"balance": 10.0}])
def test_a_gaussian_ratio_is_learnt_by_every_loss(options, nre):
    if options:
        nre = NREEstimator(prior=PRIOR, **{**SMALL, "max_iter": 5}, **options)
        nre.fit(*gaussian(2000))
    theta, X = gaussian(500, seed=1)
    error = np.abs(nre.log_prob(theta, X) - exact_log_ratio(theta, X))
    assert np.median(error) < 0.1
    draws = nre.sample_posterior(X[:5], 2000)
    mean, sd = exact_posterior(X[:5])
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=0.2 * sd.min())
    np.testing.assert_allclose(draws.std(axis=1), np.tile(sd, (5, 1)), rtol=0.15)


def test_it_is_a_ratio(nre):
    """Its mean over the prior is 1 for every x."""
    _, X = gaussian(20, seed=2)
    mean, error = nre.normalization(X, 20_000, random_state=0)
    assert error.shape == (20,)
    assert np.abs(mean - 1).mean() < 0.1
    one = nre.normalization(X[0], 20_000, random_state=0)
    np.testing.assert_allclose(one, (mean[0], error[0]))


def test_the_true_ratio_scores_best_and_no_ratio_minus_log_2(nre, monkeypatch):
    theta, X = gaussian(2000, seed=3)
    learnt, noise = nre.score(theta, X), np.random.default_rng(0)
    # a pair of its own theta, against the contrasts of the estimator
    contrasts = nre._maps.theta.inverse(nre._contrasts[0])
    every = np.stack([exact_log_ratio(c[None], X) for c in contrasts], axis=1)

    def score(add):
        own, others = exact_log_ratio(theta, X) + add(len(X)), every + add(every.shape)
        monkeypatch.setattr("skbi.estimators.ratios.log_ratio", lambda *_: own)
        monkeypatch.setattr(
            "skbi.estimators.ratios.scores_against", lambda *_: torch.tensor(others)
        )
        return nre.score(theta, X)

    exact = score(lambda _: 0.0)
    assert exact - 0.02 < learnt < exact + 0.01
    for worse in (lambda _: 0.5, lambda _: -0.5, lambda shape: noise.normal(size=shape)):
        assert score(worse) < exact
    own, every = np.zeros(len(X)), np.zeros_like(every)
    monkeypatch.setattr("skbi.estimators.ratios.log_ratio", lambda *_: own)
    monkeypatch.setattr("skbi.estimators.ratios.scores_against", lambda *_: torch.tensor(every))
    assert nre.score(theta, X) == pytest.approx(-np.log(2))


def test_the_best_validation_score_is_the_score_of_the_mixture():
    theta, X = gaussian(600)
    nre = NREEstimator(prior=PRIOR, n_estimators=3, **QUICK).fit(theta, X)
    rng = np.random.default_rng(0)  # which splits the pairs first
    validation = rng.permutation(600)[:60]
    found = nre.score(theta[validation], X[validation])
    assert found == pytest.approx(nre.best_validation_score_, abs=1e-4)


# ---- discrete data and parameters


def test_counts_need_no_noise():
    """Rates under a gamma prior have gamma posteriors."""
    prior = JointPrior({"rate": stats.gamma(3)})
    theta = prior.sample(3000, random_state=0)
    X = np.random.default_rng(1).poisson(theta, (3000, 3))
    nre = NREEstimator(prior=prior, max_iter=20, n_estimators=1, random_state=0).fit(theta, X)
    X_obs = np.array([[1, 2, 0], [4, 6, 5]])
    draws = nre.sample_posterior(X_obs, 2000)
    exact = stats.gamma(3 + X_obs.sum(axis=1), scale=1 / 4)
    off = (draws[:, :, 0].mean(axis=1) - exact.mean()) / exact.std()
    assert np.abs(off).mean() < 0.1 * (10 / 3) ** 0.5  # 0.1 at 10,000 pairs
    np.testing.assert_allclose(draws[:, :, 0].std(axis=1), exact.std(), rtol=0.2)


def test_two_models_are_told_apart():
    """P(model | x) of N(0, 1) and N(1, 2^2), by enumeration.

    0.03 is what 10,000 pairs should give; an error of 2,000 is 5^(1/2) times as large.
    """
    prior = JointPrior({"model": stats.bernoulli(0.3)})
    theta = prior.sample(2000, random_state=0)
    X = theta + (1 + theta) * np.random.default_rng(1).normal(size=(2000, 1))
    nre = NREEstimator(prior=prior, **SMALL).fit(theta, X)
    fresh = X[:100]
    draws = nre.sample_posterior(fresh, 5000, random_state=0)[:, :, 0]
    p = [0.7, 0.3] * stats.norm([0, 1], [1, 2]).pdf(fresh)
    exact = p[:, 1] / p.sum(axis=1)
    assert np.abs(draws.mean(axis=1) - exact).mean() < 0.03 * 5**0.5


def test_categories_and_numbers_in_a_frame():
    """One of three categories of softmax(a, b, 0) and a number; exact by a sum over the prior."""
    rng = np.random.default_rng(0)

    def simulate(theta):
        p = special.softmax(np.c_[theta, np.zeros(len(theta))], axis=1)
        word = np.array(["red", "green", "blue"])[(rng.random((len(p), 1)) > p.cumsum(1)).sum(1)]
        return pd.DataFrame({"word": word, "number": theta[:, 0] + rng.normal(size=len(p))})

    theta = PRIOR.sample(2000, random_state=0)
    columns = ColumnTransformer(
        [("word", OneHotEncoder(sparse_output=False), ["word"]),
         ("number", StandardScaler(), ["number"])]
    )  # fmt: skip
    nre = NREEstimator(prior=PRIOR, summary=columns, **SMALL).fit(theta, simulate(theta))
    X_obs = pd.DataFrame({"word": ["red", "blue"], "number": [0.5, -0.5]})
    draws, grid = nre.sample_posterior(X_obs, 2000), PRIOR.sample(100_000, random_state=1)
    p = special.softmax(np.c_[grid, np.zeros(len(grid))], axis=1)
    for i, (column, number) in enumerate([(0, 0.5), (2, -0.5)]):
        weights = p[:, column] * stats.norm.pdf(number, grid[:, 0])
        mean = np.average(grid, axis=0, weights=weights)
        sd = np.sqrt(np.average((grid - mean) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(draws[i].mean(axis=0), mean, atol=0.2 * sd.max())
        np.testing.assert_allclose(draws[i].std(axis=0), sd, rtol=0.2)


def test_a_failed_simulation_is_an_observation():
    """It fails where x = m + noise < 0: an x of zero, beside a one that says so."""
    prior = JointPrior({"m": stats.uniform(-2, 4)})
    theta = prior.sample(4000, random_state=0)
    x = theta + np.random.default_rng(1).normal(size=(4000, 1))
    X = np.hstack([np.where(x < 0, 0, x), x < 0])
    nre = NREEstimator(prior=prior, **SMALL).fit(theta, X)
    m = np.linspace(-2, 2, 401)
    for observed, mass in (([0.0, 1.0], stats.norm.cdf(-m)), ([0.3, 0.0], stats.norm.pdf(0.3, m))):
        exact, draws = np.average(m, weights=mass), nre.sample_posterior(np.array(observed), 2000)
        assert abs(draws.mean() - exact) < 0.15  # 0.2 sd, as of NLE


def test_constant_and_repeated_features_are_welcome():
    theta, X = gaussian(300)
    X = np.c_[X, X[:, 0], np.ones(300)]
    assert np.isfinite(NREEstimator(prior=PRIOR, **QUICK).fit(theta, X).log_prob(theta, X)).all()


# ---- sets


def test_points_add_up(nre):
    theta, X = gaussian(3, seed=4)
    sets = X[:, None] + 0.1 * np.random.default_rng(0).normal(size=(3, 5, 2))
    each = [nre.log_prob(theta[i : i + 1], x).sum() for i, x in enumerate(sets)]
    np.testing.assert_allclose(nre.log_prob(theta, sets), each, atol=1e-6)
    ragged = [sets[0], sets[1, :2], sets[2, :1]]
    each = [nre.log_prob(theta[i : i + 1], x).sum() for i, x in enumerate(ragged)]
    np.testing.assert_allclose(nre.log_prob(theta, ragged), each, atol=1e-6)
    assert nre.sample_posterior(sets, 20).shape == (3, 20, 2)


@pytest.mark.parametrize("sets", ["sum", "summary"])
def test_posteriors_of_sets(sets):
    theta = PRIOR.sample(1000, random_state=0)
    noise = np.random.default_rng(1).normal(size=(1000, 5, 2))
    X = theta[:, None] + NOISE * noise
    nre = NREEstimator(prior=PRIOR, sets=sets, **{**SMALL, "max_iter": 8}).fit(theta, X)
    draws = nre.sample_posterior(X[:4], 1000)
    mean, sd = exact_posterior(X[:4].mean(axis=1), 5)
    assert (np.abs(draws.mean(axis=1) - mean) / sd).mean() < 0.3
    np.testing.assert_allclose(draws.std(axis=1).mean(axis=0), sd, rtol=0.25)
    if sets == "sum":  # of any size
        assert np.isfinite(nre.log_prob(theta[:2], [X[0, :1], np.tile(X[1], (4, 1))])).all()


def test_a_module_summarises_sets():
    class Means(torch.nn.Module):
        def forward(self, points, sizes):
            return torch.stack([x.mean(0) for x in points.split(sizes.tolist())])

    theta = PRIOR.sample(200, random_state=0)
    X = theta[:, None] + np.random.default_rng(1).normal(size=(200, 3, 2))
    nre = NREEstimator(prior=PRIOR, summary=Means(), **QUICK).fit(theta, X)
    assert np.isfinite(nre.log_prob(theta, X)).all()
    assert nre.typicality(X[:2]).shape == (2,)


# ---- as every estimator


def test_wide_vectors_and_gaps():
    theta = PRIOR.sample(300, random_state=0)
    X = theta @ np.ones((2, 20)) + np.random.default_rng(0).normal(size=(300, 20))
    assert np.isfinite(NREEstimator(prior=PRIOR, **QUICK).fit(theta, X).score(theta, X))
    X[::3, 4] = np.nan
    nre = NREEstimator(prior=PRIOR, missing="mask", **QUICK).fit(theta, X)
    assert np.isfinite(nre.log_prob(theta, X)).all()


def test_sampling_says_what_is_unusual(nre):
    with pytest.warns(UserWarning, match="unlike the training simulations"):
        nre.sample_posterior(np.array([80.0, 80.0]), 20)
    with pytest.raises(NotFittedError):
        NREEstimator(prior=PRIOR).normalization(np.zeros(2))


def test_rounds_of_simulations():
    """Contrasts come from the same proposals as pairs, so that posteriors stay right."""
    rng = np.random.default_rng(0)

    def simulate(theta):
        return theta + NOISE * rng.normal(size=theta.shape)

    x = np.array([1.0, 3.0])
    options = {"rounds": 2, "n_samples": 1000, "random_state": 0}
    fitted, theta, _ = sequential(
        PRIOR, skbi.FunctionSimulator(simulate, vectorized=True), x, NREEstimator(**SMALL),
        **options,
    )  # fmt: skip
    assert len(theta) == 2000
    draws, (mean, sd) = fitted.sample_posterior(x, 2000), exact_posterior(x)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.2 * sd.max())
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.2)


def test_weights_turn_a_proposal_into_the_prior():
    proposal = stats.norm([1.0, 0.0], [1.5, 3.0])
    theta = proposal.rvs((2000, 2), random_state=0)
    weights = np.exp(PRIOR.log_prob(theta) - proposal.logpdf(theta).sum(axis=1))
    nre = NREEstimator(prior=PRIOR, **SMALL).fit(*gaussian(2000, theta=theta), weights)
    x = np.array([0.0, 1.0])
    draws, (mean, sd) = nre.sample_posterior(x, 2000), exact_posterior(x)
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.3 * sd.max())
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.3)


def test_it_goes_on_where_it_stopped(nre):
    more = copy.deepcopy(nre).set_params(warm_start=True, max_iter=2, learning_rate_init=1e-4)
    more.fit(*gaussian(2000))
    assert len(more.loss_curve_) == nre.n_iter_ + more.n_iter_
    with pytest.raises(ValueError, match=r"\['hidden_layer_sizes'\] changed"):
        more.set_params(hidden_layer_sizes=(4,)).fit(*gaussian(2000))


def test_files(nre):
    theta, X = gaussian(20, seed=5)
    expected = nre.log_prob(theta, X), nre.score(theta, X)
    opened = skops.io.loads(skops.io.dumps(nre), trusted=skbi.TRUSTED_TYPES)
    for twin in (opened, pickle.loads(pickle.dumps(nre))):
        np.testing.assert_array_equal(twin.log_prob(theta, X), expected[0])
        assert twin.score(theta, X) == expected[1]


def test_it_is_calibrated(nre):
    theta, X = gaussian(60, seed=6)
    assert coverage_score(nre, theta, X, n_samples=100, random_state=0) > 0.8


@pytest.mark.parametrize("sets", ["vectors", "summary", "sum"])
def test_draws_of_a_batch_are_evaluated_as_one_by_one(sets):
    theta, X = gaussian(60)
    if sets != "vectors":
        X = np.stack([X, X + 0.1, X - 0.2], axis=1)
    options = {} if sets == "vectors" else {"sets": sets}
    fitted = NREEstimator(prior=PRIOR, **QUICK, **options).fit(theta, X)
    draws = PRIOR.sample(20, random_state=1).reshape(4, 5, 2)
    found = fitted.log_prob(draws, X[:4])
    for row, each, x in zip(found, draws, X[:4], strict=True):
        np.testing.assert_allclose(row, fitted.log_prob(each, x[None]), rtol=1e-5, atol=1e-5)
    one = fitted.log_prob(draws[:1], X[:4])
    np.testing.assert_allclose(one[2], fitted.log_prob(draws[0], X[2:3]), rtol=1e-5, atol=1e-5)
