"""CMPE against closed forms: draws, scores, steps, files."""

import copy
import pickle

import numpy as np
import pytest
import skops.io
from scipy import stats

import skbi
from skbi import CMPEEstimator, JointPrior, energy_score

QUICK = {"max_iter": 3, "hidden_layer_sizes": (16, 16), "random_state": 0}
PRIOR = JointPrior({"a": stats.norm(), "b": stats.norm(1, 2)})
NOISE = 0.5


def gaussian(n, seed=0):
    """Pairs whose posterior is Gaussian, with its means and sds."""
    theta = PRIOR.sample(n, random_state=seed)
    X = theta + NOISE * np.random.default_rng([seed, 1]).normal(size=theta.shape)
    precision = np.array([1.0, 0.25]) + 1 / NOISE**2
    return theta, X, (np.array([0.0, 0.25]) + X / NOISE**2) / precision, precision**-0.5


@pytest.fixture(scope="module")
def cmpe():
    return CMPEEstimator(prior=PRIOR, **QUICK).fit(*gaussian(2000)[:2])


def test_a_gaussian_posterior_is_drawn(cmpe):
    _, X, mean, sd = gaussian(20, seed=1)
    draws = cmpe.sample_posterior(X, 2000)
    np.testing.assert_allclose(draws.mean(axis=1), mean, atol=0.4 * sd.min())
    np.testing.assert_allclose(draws.std(axis=1).mean(axis=0), sd, rtol=0.12)


def test_two_modes_are_both_drawn():
    rng = np.random.default_rng(0)
    theta = rng.uniform(-2, 2, size=(1500, 1))
    X = np.abs(theta) + 0.1 * rng.normal(size=theta.shape)
    options = {**QUICK, "max_iter": 25, "hidden_layer_sizes": (32, 32), "n_estimators": 1}
    cmpe = CMPEEstimator(prior=JointPrior({"a": stats.uniform(-2, 4)}), **options).fit(theta, X)
    draws = cmpe.sample_posterior(np.array([1.0]), 2000)
    assert np.mean(draws > 0) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.abs(np.abs(draws) - 1) < 0.3) > 0.75


def test_there_is_no_density(cmpe):
    for name in ("log_prob", "log_posterior", "log_evidence"):
        assert not hasattr(cmpe, name)


def test_the_score_is_minus_the_energy_score(cmpe):
    theta, X, *_ = gaussian(400, seed=2)
    found = energy_score(cmpe, theta, X, random_state=0)
    assert cmpe.score(theta, X) == pytest.approx(-found, rel=0.02)
    assert cmpe.score(theta, X) == cmpe.score(theta, X)
    weights = np.repeat([0.0, 1.0], 200)
    assert cmpe.score(theta, X, weights) == pytest.approx(
        cmpe.score(theta[200:], X[200:]), rel=0.05
    )
    assert cmpe.score(theta, X) > cmpe.score(theta[::-1], X)


def test_steps_may_be_changed_after_a_fit(cmpe):
    _, X, _, sd = gaussian(5, seed=3)
    for n_steps in (1, 4, 30):
        other = copy.deepcopy(cmpe)
        other.n_steps_ = n_steps
        draws = other.sample_posterior(X, 1000)
        assert draws.shape == (5, 1000, 2)
        np.testing.assert_allclose(draws.std(axis=1).mean(axis=0), sd, rtol=0.25)


def test_training_and_validation_tell_what_they_hold(cmpe):
    assert len(cmpe.loss_curve_) == len(cmpe.validation_scores_) == cmpe.n_iter_ == 3
    assert cmpe.best_validation_score_ == pytest.approx(max(cmpe.validation_scores_), abs=0.1)
    assert cmpe.best_validation_score_ < 0
    unstopped = CMPEEstimator(prior=PRIOR, early_stopping=False, **QUICK).fit(*gaussian(200)[:2])
    assert unstopped.best_validation_score_ is None


def test_a_pickle_and_a_skops_file_draw_the_same(cmpe, tmp_path):
    _, X, *_ = gaussian(3)
    draws = cmpe.sample_posterior(X, 10)
    skops.io.dump(cmpe, tmp_path / "cmpe.skops")
    opened = skops.io.load(tmp_path / "cmpe.skops", trusted=skbi.TRUSTED_TYPES)
    for twin in (pickle.loads(pickle.dumps(cmpe)), opened):
        np.testing.assert_array_equal(twin.sample_posterior(X, 10), draws)


def test_it_goes_on_where_it_stopped(cmpe):
    more = copy.deepcopy(cmpe).set_params(warm_start=True, n_estimators=3, max_iter=1)
    more.fit(*gaussian(300)[:2])
    assert len(more.members_) == 3
    assert len(more.loss_curve_) == 4


@pytest.mark.parametrize("form", ["sets", "ragged", "missing"])
def test_observations_of_other_forms(form):
    theta, X, *_ = gaussian(120)
    data = X[:, None] + np.random.default_rng(2).normal(size=(120, 4, 2))
    options = {}
    if form == "ragged":
        data = [x[: 1 + i % 4] for i, x in enumerate(data)]
    if form == "missing":
        data, options = (
            np.where(np.random.default_rng(0).random(X.shape) < 0.1, np.nan, X),
            {"missing": "mask"},
        )
    cmpe = CMPEEstimator(prior=PRIOR, **options, **QUICK).fit(theta, data)
    assert cmpe.sample_posterior(data[:3], 7).shape == (3, 7, 2)
    assert np.isfinite(cmpe.score(theta, data))
