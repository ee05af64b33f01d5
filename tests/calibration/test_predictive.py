"""Predictive data follow their closed form; untypical observations have small p-values."""

import math

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats
from sklearn.preprocessing import FunctionTransformer

from skbi import (
    DoubleMoonSimulator,
    NLEEstimator,
    NPEEstimator,
    misspecification_score,
    posterior_predictive,
)
from skbi.calibration.predictive import compare_with_replications, prior_predictive


def vectors(n=2000, seed=0):
    """Six features of a curved two-dimensional surface, one with a heavy tail."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-1, 1, size=(n, 2))
    a, b = theta.T
    clean = np.column_stack([a, b, a**2, a * b, np.sin(3 * b), np.exp(2 * a)])
    return theta, clean + 0.05 * rng.standard_t(5, size=clean.shape)


@pytest.fixture(scope="module")
def npe_of_surface(quick):
    return NPEEstimator(**quick).fit(*vectors())


def test_predictions_come_from_the_posterior():
    """Data are theta + noise of sd 1: replications have mean x / 2 and variance 3 / 2."""
    noise = np.random.default_rng(0)
    simulator = FunctionTransformer(lambda theta: theta + noise.normal(size=theta.shape))
    X = np.array([[1.0, 0.0], [-2.0, 3.0]])
    data = posterior_predictive(Gaussian(), simulator, X, n_samples=4000, random_state=0)
    assert data.shape == (2, 4000, 2)
    np.testing.assert_allclose(data.mean(axis=1), X / 2, atol=5 * math.sqrt(1.5 / 4000))
    np.testing.assert_allclose(data.var(axis=1), 1.5, rtol=5 * math.sqrt(2 / 4000))


def test_predicted_sets_come_as_sets(npe, pairs):
    sets = posterior_predictive(npe, DoubleMoonSimulator(n_points=(5, 15)), pairs[1][:2],
                                n_samples=3, random_state=0)  # fmt: skip
    assert sets.shape == (2, 3)
    assert sets[0, 0].shape[1] == 2


def add_one(theta):
    """Fail at theta of which the first is negative."""
    return theta + 1 if theta[0] > 0 else theta * np.nan


FAR = np.array(
    [[40.0, 0.0], [0.0, 0.0], [-40.0, 0.0]]
)  # at x / 2, with a sd of 0.7: none, half, all


def test_one_observation_is_the_first_of_its_batch():
    one = posterior_predictive(Gaussian(), np.square, FAR[0], n_samples=7, random_state=0)
    batch = posterior_predictive(Gaussian(), np.square, FAR[:1], n_samples=7, random_state=0)
    assert one.shape == (7, 2)
    np.testing.assert_array_equal(one, batch[0])


def test_replications_that_fail_stop_by_default():
    with pytest.raises(RuntimeError, match=r"failed \(nan\)(.|\n)*on_error='drop'"):
        posterior_predictive(Gaussian(), add_one, FAR, n_samples=20, random_state=0)
    with pytest.raises(ValueError, match=r"on_error must be 'raise', 'drop' or 'nan'; got 'skip'"):
        posterior_predictive(None, add_one, FAR, on_error="skip")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_replications_that_fail_are_dropped_or_nan_and_reported(n_jobs):
    options = {"n_samples": 200, "n_jobs": n_jobs, "random_state": 0}
    message = r"of 600 simulations failed(.|\n)*depends on theta_0(.|\n)*conditional on success"
    with pytest.warns(UserWarning, match=message):
        filled = posterior_predictive(Gaussian(), add_one, FAR, on_error="nan", **options)
    with pytest.warns(UserWarning, match="simulations failed"):
        kept = posterior_predictive(Gaussian(), add_one, FAR, on_error="drop", **options)
    assert filled.shape == (3, 200, 2)
    failed = np.isnan(filled).all(axis=2)
    assert failed[0].sum() == 0
    assert failed[2].sum() == 200
    assert abs(failed[1].mean() - 0.5) < 5 * 0.5 / math.sqrt(200)
    assert len(kept) == 3
    for x, all_x, is_failed in zip(kept, filled, failed, strict=True):
        np.testing.assert_array_equal(x, all_x[~is_failed])
    with pytest.warns(UserWarning, match="of 200 simulations failed"):
        one = posterior_predictive(Gaussian(), add_one, FAR[1], on_error="drop", **options)
    assert 0 < len(one) < 200


def test_ragged_replications_that_fail_are_empty_or_dropped():
    def ragged(theta, rng):
        return add_one(theta) + rng.normal(size=(rng.integers(1, 4), 2))

    options = {"n_samples": 30, "random_state": 0}
    with pytest.warns(UserWarning, match="of 60 simulations failed"):
        filled = posterior_predictive(Gaussian(), ragged, FAR[:2], on_error="nan", **options)
    with pytest.warns(UserWarning, match="of 60 simulations failed"):
        kept = posterior_predictive(Gaussian(), ragged, FAR[:2], on_error="drop", **options)
    assert filled.shape == (2, 30)
    for some, sets in zip(kept, filled, strict=True):
        expected = [x for x in sets if len(x)]
        assert len(some) == len(expected)
        assert all(map(np.array_equal, some, expected))


def test_anything_with_a_typicality_has_a_score():
    class Typical:
        def typicality(self, X_obs):
            return np.exp(-np.abs(X_obs))

    np.testing.assert_array_equal(misspecification_score(Typical(), np.zeros(3)), np.ones(3))
    X = gaussian_runs(20)[1]
    with pytest.raises(TypeError, match=r"needs an estimator of skbi.*got Gaussian"):
        misspecification_score(Gaussian(), X)


def test_p_values_of_fresh_simulations_are_uniform(npe_of_surface):
    p = misspecification_score(npe_of_surface, vectors(20_000, seed=1)[1])
    for a in (0.5, 0.1, 0.05, 0.01, 0.001):
        # 200 held-out simulations place a quantile with a relative error of 1 / sqrt(200 a)
        assert (p <= a).mean() < a * (1 + 4 / math.sqrt(200 * max(a, 0.1)))
    assert (p <= 0.1).mean() > 0.03


@pytest.mark.parametrize("feature", range(6))
def test_far_observations_are_flagged(npe_of_surface, feature):
    _, X = vectors(100, seed=2)
    X[:, feature] += 10 * vectors()[1][:, feature].std()
    assert (misspecification_score(npe_of_surface, X) < 1e-3).mean() >= 0.99
    with pytest.warns(UserWarning, match=r"of 100 observations are unlike .* row \d+"):
        npe_of_surface.sample_posterior(X, 2)


def test_observations_off_the_surface_are_flagged(npe_of_surface):
    """Each feature within its range, but not together."""
    rng = np.random.default_rng(3)
    _, X = vectors(100, seed=3)
    off = rng.permuted(X, axis=0)
    assert np.median(misspecification_score(npe_of_surface, off)) < 1e-3


@pytest.mark.parametrize("n", [2, 30, 300, 2000])
@pytest.mark.parametrize("kind", ["normal", "counts", "coin and count"])
def test_far_data_are_flagged_and_fresh_ones_are_not_at_any_size(n, kind, quick):
    def data(n, seed):
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=(n, 1))
        if kind == "normal":
            return theta, theta + rng.normal(size=(n, 2))
        X = rng.poisson(np.exp(theta / 2 + [0, 1]))
        return theta, X if kind == "counts" else np.column_stack([rng.random(n) < 0.5, X[:, 0]])

    npe = NPEEstimator(**quick).fit(*data(n, 0))
    fresh = misspecification_score(npe, data(4000, 1)[1])
    assert (fresh < 1e-3).mean() < 0.01
    assert (misspecification_score(npe, np.full((5, 2), 1e6)) < 1e-3).all()


def test_sets_of_nearly_the_trained_size_are_typical(npe_of_large_sets):
    npe, _, X = npe_of_large_sets
    p_values = misspecification_score(npe, X[:, :-1])  # one point less, of 200
    assert (p_values < 0.05).mean() < 0.3  # 12 held-out sets


def test_far_sets_are_flagged(npe, pairs):
    X = list(pairs[1][:100])
    for far in ([x + 20 for x in X], [x * 30 for x in X], [np.tile(x, (40, 1)) for x in X]):
        assert (misspecification_score(npe, far) < 1e-3).mean() >= 0.99
    assert isinstance(misspecification_score(npe, X[0]), float)
    fresh = misspecification_score(npe, X)
    assert (fresh <= 0.1).mean() < 0.25  # 200 held-out sets, 100 tried: 0.1 +- 0.04


def test_a_point_far_outside_makes_a_set_of_an_nle_unlike(quick):
    theta, X = vectors()
    nle = NLEEstimator(**quick).fit(theta, X)
    fresh = vectors(500, seed=1)[1].reshape(50, 10, 6)
    assert (misspecification_score(nle, fresh) < 0.01).mean() < 0.1
    fresh[:, 3, 2] += 20
    assert (misspecification_score(nle, fresh) < 1e-3).all()


def test_p_values_of_an_observation_among_its_like_are_uniform():
    rng = np.random.default_rng(0)
    data = rng.standard_t(3, size=(400, 100, 4)) ** 3  # heavy tails and skewed signs
    p_values = [compare_with_replications(x[1:], x[:1]).p_value for x in data]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_the_feature_that_is_off_is_named():
    data = np.random.default_rng(0).normal(size=(300, 20, 2))
    wide = 3 * data[:1]
    check = compare_with_replications(data, wide)
    assert check.p_value < 0.01
    off = {check.names[j] for j in np.flatnonzero(check.tail_probability < 0.01)}
    assert {"sd of x_0", "sd of x_1"} <= off
    assert compare_with_replications(data, data[:1]).p_value > 0.01


def test_prior_predictive_data_are_those_of_the_prior():
    prior, rng = DoubleMoonSimulator.prior(), np.random.default_rng(0)
    data = prior_predictive(prior, lambda theta: theta, 500, n_jobs=None, rng=rng)
    assert data.shape == (500, 3)
    assert stats.kstest(data[:, 0], "uniform").pvalue > 1e-3
