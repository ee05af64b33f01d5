"""Pairs that were not meant as they were passed are told so, and others are not."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from skbi import DoubleMoonSimulator, JointPrior, NLEEstimator, NPEEstimator, simulate
from skbi.estimators.misuse import signs_of_misuse
from skbi.estimators.pairs import TrainingData
from skbi.preprocessing.packed import pack

QUICK = {"max_iter": 1, "n_transforms": 1, "hidden_layer_sizes": (8,), "random_state": 0}
SEEDS = st.integers(0, 2**32 - 1)
both = pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])


def messages(theta, X, prior=None):
    """Return what is said of training pairs."""
    packed, n = pack(X, missing="mask"), len(theta)
    names, weights = np.array(["a", "b"]), np.ones(n)
    data = TrainingData(theta, packed, names, weights, np.arange(n), None, packed.owners())
    return signs_of_misuse(data, prior)


# ---- outliers of theta


@both
def test_an_outlier_of_theta_is_named(kind):
    theta = np.random.default_rng(0).normal(size=(300, 2))
    X = theta + 1
    theta[7, 1] = 1e12
    with pytest.warns(UserWarning, match=r"1 of 300 rows .* row 7 has 1e\+12 of 'theta_1'"):
        kind(**QUICK).fit(theta, X)


@given(seed=SEEDS, n=st.integers(50, 3000))
def test_draws_of_priors_with_long_tails_are_no_outliers(seed, n):
    rng = np.random.default_rng(seed)
    for theta in (
        rng.standard_cauchy((n, 2)),
        rng.lognormal(0, 5, (n, 2)),
        rng.poisson(0.1, (n, 2)),
    ):
        assert not any(
            "outlier" in m for m in messages(theta.astype(float), rng.normal(size=(n, 9)))
        )


# ---- theta and X swapped

SIMULATORS = {
    "curve": lambda theta, rng: np.exp(-theta[:, :1] * np.linspace(0, 2, 9)) + theta[:, 1:],
    "product": lambda theta, rng: np.stack([theta.prod(axis=1), theta[:, 0]], axis=1),
    "scale": lambda theta, rng: theta[:, :1] * rng.normal(size=(len(theta), 4)),  # uncorrelated
}


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_theta_and_X_are_told_apart_where_simulations_depend_on_each_other(simulator):
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.1, 2, (1000, 2))
    X = SIMULATORS[simulator](theta, rng)
    X = X + 0.1 * X.std(axis=0) * rng.normal(size=X.shape)
    assert not messages(theta, X)
    (message,) = messages(X, theta)
    assert message.startswith("Are theta and X swapped? It is fit(theta, X).")
    prior = JointPrior({f"theta_{j}": stats.norm() for j in range(X.shape[1])})
    assert not messages(X, theta, prior)


@given(seed=SEEDS, n=st.integers(2, 400), p=st.integers(1, 4), d=st.integers(1, 4))
def test_independent_parameters_are_never_taken_for_simulations(seed, n, p, d):
    rng = np.random.default_rng(seed)
    theta = np.exp(rng.normal(size=(n, p)) * rng.choice([0.1, 3.0], p)).round(rng.integers(0, 9))
    X = theta @ rng.normal(size=(p, d)) + rng.normal(size=(n, d))
    X[rng.random((n, d)) < 0.1] = np.nan
    X[:, 0] = rng.choice([0.0, np.nan])  # tells nothing
    assert not messages(theta, X)


def test_what_cannot_be_told_apart_is_fitted_in_silence():
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(1000, 2))
    X = theta + rng.normal(size=(1000, 2))
    dependent = theta @ [[1.0, 0.9], [0.0, 0.4]]
    assert not messages(X, theta)  # independent either way
    assert not messages(dependent, dependent + rng.normal(size=(1000, 2)))
    assert not messages(dependent, dependent[:, :1])  # a single feature
    assert not messages(dependent, rng.normal(size=(1000, 2)))  # that tells nothing of theta


@both
def test_a_fit_says_once_that_they_may_be_swapped(kind):
    theta = np.random.default_rng(0).uniform(size=(400, 2))
    X = np.column_stack([theta.sum(axis=1), theta[:, 0]])
    with pytest.warns(UserWarning, match="theta and X swapped") as caught:
        estimator = kind(**QUICK).fit(X, theta)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.set_params(warm_start=True).fit(X, theta)
        kind(**QUICK).fit(theta, X)


# ---- a scaler in front

PRIOR = JointPrior({"a": stats.norm(1, 3), "b": stats.norm(-5, 2)})
SCALERS = [StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PowerTransformer]


@pytest.mark.parametrize("scaler", SCALERS)
@both
def test_a_pipeline_that_scales_theta_is_told_where_transformers_go(kind, scaler):
    theta = PRIOR.sample(100, random_state=0)
    X = theta + np.random.default_rng(0).normal(size=theta.shape)
    with pytest.warns(UserWarning, match=r"Pipeline transforms .*NPEEstimator\(summary=Standard"):
        make_pipeline(scaler(), kind(prior=PRIOR, **QUICK)).fit(theta, X)
    bounded = JointPrior({"a": stats.uniform(5, 2), "b": stats.uniform(-9, 1)})
    theta = bounded.sample(100, random_state=0)
    with pytest.raises(ValueError, match=r"outside the support of .*Pipeline .*summary="):
        make_pipeline(scaler(), kind(prior=bounded, **QUICK)).fit(theta, X)


@given(seed=SEEDS, n=st.integers(2, 200))
def test_draws_of_a_prior_are_never_taken_for_scaled(seed, n):
    marginals = {"a": stats.norm(), "b": stats.uniform(0, 1), "c": stats.bernoulli(0.5)}
    for names in ("a", "ab", "b", "c", "bc"):
        prior = JointPrior({name: marginals[name] for name in names})
        theta = prior.sample(n, random_state=seed)
        assert not messages(theta, np.zeros((n, 2)), prior)
    grid = np.tile(np.linspace(0, 1, n), 2)[:, None]
    for marginal in (stats.uniform(0, 1), stats.halfnorm()):
        assert not messages(grid, np.zeros((2 * n, 2)), JointPrior({"b": marginal}))


@pytest.mark.parametrize("marginal", [stats.halfnorm(), stats.uniform(-1, 2), stats.gamma(2)])
@pytest.mark.parametrize("scaler", [MinMaxScaler, MaxAbsScaler])
def test_a_scaler_that_keeps_theta_within_the_support_is_noticed(scaler, marginal):
    prior = JointPrior({"a": marginal})
    theta = scaler().fit_transform(prior.sample(50, random_state=0))
    assert len(messages(theta, np.zeros((50, 2)), prior)) == 1


# ---- series as sets


def series(kind, n, size, rng):
    """Return series (n, size, 2), of which the second feature is noise."""
    noise, time = rng.normal(size=(n, size, 2)), np.linspace(0, 1, size)
    if kind == "walk":
        noise[..., 0] = np.cumsum(noise[..., 0], axis=1)
    elif kind == "autoregression of either sign":
        phi = rng.uniform(-1, 1, n)
        for i in range(1, size):
            noise[:, i, 0] += phi * noise[:, i - 1, 0]
    elif kind == "decay":
        noise[..., 0] = np.exp(-5 * rng.random((n, 1)) * time) + 0.1 * noise[..., 0]
    elif kind == "switch":
        noise[..., 0] = (np.cumsum(rng.random((n, size)) < 0.1, axis=1) % 2).astype(float)
    return noise


KINDS = ["walk", "autoregression of either sign", "decay", "switch"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_given_as_a_set_is_noticed(kind):
    rng = np.random.default_rng(0)
    theta, X = rng.normal(size=(200, 1)), series(kind, 200, 40, rng)
    (message,) = messages(theta, X)
    assert "feature 0" in message
    assert "summary='series'" in message
    ragged = [x[: rng.integers(20, 41)] for x in X]
    assert len(messages(theta, ragged)) == 1
    shuffled = np.array([rng.permutation(x) for x in X])
    assert not messages(theta, shuffled)
    time = np.broadcast_to(np.arange(40.0)[:, None], (200, 40, 1))
    assert not messages(theta, np.concatenate([X, time], axis=2))  # which tells the order
    assert not messages(theta, np.sort(shuffled, axis=1))


@given(seed=SEEDS, n=st.integers(2, 60), size=st.integers(1, 12), d=st.integers(1, 3))
def test_points_in_any_order_are_not_taken_for_a_series(seed, n, size, d):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 1))
    sets = [t + rng.standard_cauchy((rng.integers(1, size + 1), d)) for t in theta]
    if rng.random() < 0.5:
        sets = [np.sign(x) for x in sets]
    assert not messages(theta, sets)


def test_the_sets_of_the_double_moon_are_sets():
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=100)
    theta, X = simulate(prior, simulator, 300, random_state=0)
    assert not messages(theta, X, prior)


@both
def test_a_fit_says_once_that_order_is_not_read(kind):
    rng = np.random.default_rng(0)
    theta, X = rng.normal(size=(100, 1)), series("walk", 100, 30, rng)
    with pytest.warns(UserWarning, match="order of a set's points is not read") as caught:
        kind(**QUICK).fit(theta, X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NPEEstimator(**QUICK).fit(theta, X.reshape(100, -1))
