"""Truncated rounds: draws of the prior inside a region, and posteriors closer to the exact one."""

import sys

import numpy as np
import pytest
from scipy import stats
from sklearn.preprocessing import FunctionTransformer

from skbi import (
    CMPEEstimator,
    FMPEEstimator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    sequential,
)
from skbi.estimators.sequential import Region

PRIOR = JointPrior({"a": stats.uniform(-3, 6), "b": stats.gamma(2)})
QUICK = {"max_iter": 10, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}
X_OBS = np.array([0.5, 1.0])


def noisy(theta, noise=0.5):
    return theta + noise * np.random.default_rng(len(theta)).normal(size=theta.shape)


@pytest.fixture(scope="module")
def npe():
    theta = PRIOR.sample(1000, random_state=0)
    return NPEEstimator(prior=PRIOR, **QUICK).fit(theta, noisy(theta))


def test_a_region_holds_the_posterior_but_a_share(npe):
    for epsilon in (0.1, 0.01):
        region = Region(npe, X_OBS, epsilon, np.random.default_rng(0))
        inside = region.contains(npe.sample_posterior(X_OBS, 10_000, random_state=1))
        assert abs(inside.mean() - (1 - epsilon)) < 6 * np.sqrt(epsilon / 10_000)


def test_draws_inside_a_region_are_the_priors(npe):
    """Against draws of the whole prior, of which those outside are thrown away."""
    rng = np.random.default_rng(0)
    region = Region(npe, X_OBS, 0.01, rng)
    inner = Region(npe, X_OBS + 0.3, 0.01, rng, within=region)
    slow = PRIOR.sample(50_000, random_state=1)
    for r in (region, inner):
        draws, expected = r.sample(1500, rng), slow[r.contains(slow)]
        assert draws.shape == (1500, 2)
        assert r.contains(draws).all()
        for x, y in zip(draws.T, expected.T, strict=True):
            assert stats.ks_2samp(x, y).pvalue > 1e-3
    assert region.contains(inner.sample(1000, rng)).all()


def test_a_region_that_cannot_be_hit_says_so(npe, monkeypatch):
    monkeypatch.setattr(sys.modules[Region.__module__], "_MAX_TRIES", 2)
    region = Region(npe, X_OBS, 0.01, np.random.default_rng(0))
    region.level += 100
    with pytest.raises(RuntimeError, match=r"Of 10 draws .* 0 lie inside it, 5 were asked for"):
        region.sample(5, np.random.default_rng(0))


def test_a_region_along_a_narrow_curve_is_hit():
    """The curve b = a^2 but for noise of a hundredth: the box around it is almost empty."""

    class Curve:
        prior = JointPrior({"a": stats.norm(), "b": stats.norm(0, 3)})

        def log_prob(self, theta, X):
            a, b = np.asarray(theta).T
            return stats.norm.logpdf(a) + stats.norm.logpdf(b, a**2, 0.01)

        def sample_posterior(self, X, n, *, check_typicality, random_state):
            a, noise = random_state.normal(size=(2, n))
            return np.column_stack([a, a**2 + 0.01 * noise])

    region = Region(Curve(), np.zeros(1), 1e-3, np.random.default_rng(0))
    draws = region.sample(500, np.random.default_rng(1))
    assert region.contains(draws).all()
    assert np.ptp(draws[:, 0]) > 3
    assert len(np.unique(draws, axis=0)) > 400


def test_a_region_far_narrower_than_the_one_around_it_is_hit():
    """Otherwise draws would gather just outside the outer one, which lacks less there."""

    class Round:
        prior = JointPrior({"a": stats.norm(), "b": stats.norm()})

        def __init__(self, sd):
            self.sd = sd

        def log_prob(self, theta, X):
            return stats.norm.logpdf(theta, 0, self.sd).sum(axis=1)

        def sample_posterior(self, X, n, *, check_typicality, random_state):
            return self.sd * random_state.normal(size=(n, 2))

    rng = np.random.default_rng(0)
    outer = Region(Round(0.1), np.zeros(1), 1e-4, rng)
    inner = Region(Round(0.002), np.zeros(1), 1e-4, rng, within=outer)
    draws = inner.sample(500, rng)
    assert inner.contains(draws).all()
    assert (np.abs(draws.mean(axis=0)) < 5 * draws.std(axis=0) / 500**0.5).all()


def test_rounds_of_a_likelihood_simulate_at_its_posterior():
    """Theta ~ U(-50, 50)^2, x = theta + 0.1 noise: 0.001 of the prior's width."""
    prior = JointPrior({name: stats.uniform(-50, 100) for name in "ab"})
    simulator = FunctionTransformer(noisy, kw_args={"noise": 0.1})
    x = np.array([20.0, -30.0])
    options = {"rounds": 3, "n_samples": 400, "random_state": 0}
    nle, theta, X = sequential(prior, simulator, x, NLEEstimator(max_iter=15), **options)
    assert len(theta) == len(X) == 1200
    near = np.abs(theta[-400:] - x).max(axis=1) < 2
    assert near.mean() == pytest.approx(0.8, abs=0.02)  # a fifth are draws of the prior
    draws = nle.sample_posterior(x, 500, random_state=1)
    assert (np.abs(draws.mean(axis=0) - x) < 0.2).all()
    assert (draws.std(axis=0) < 0.2).all()
    again, *_ = sequential(prior, simulator, x, NLEEstimator(max_iter=15), **options)
    np.testing.assert_array_equal(again.log_prob(theta, x), nle.log_prob(theta, x))


def failing(theta, rng):
    """Return theta and noise, but fail at draws of noise that do not depend on theta."""
    return theta + rng.normal(size=2) if rng.random() > 0.2 else theta * np.nan


@pytest.mark.filterwarnings("ignore:.*of the draws lie outside the range")
@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_failures_of_all_rounds_are_dropped_and_reported_together(kind):
    options = {"rounds": 2, "n_samples": 100, "random_state": 0}
    estimator = kind(max_iter=2, n_transforms=1, hidden_layer_sizes=(8,))
    with pytest.raises(RuntimeError, match=r"failed \(nan\)(.|\n)*Use on_error='drop'"):
        sequential(PRIOR, failing, X_OBS, estimator, **options)
    with pytest.warns(UserWarning, match=r"\d+ of 200 simulations failed") as caught:
        _, theta, X = sequential(PRIOR, failing, X_OBS, estimator, on_error="drop", **options)
    reports = [w for w in caught if "simulations failed" in str(w.message)]
    assert [w.filename for w in reports] == [__file__]
    n_failed = int(str(reports[0].message).split()[0])
    assert abs(n_failed / 200 - 0.2) < 5 * 0.4 / np.sqrt(200)
    assert np.isfinite(X).all()
    assert (np.abs(X - theta) < 6).all()  # each theta has kept its own x
    if kind is NLEEstimator:
        assert len(theta) == len(X) == 200 - n_failed


def test_failures_that_depend_on_theta_are_said_to():
    def fails_above_zero(theta, rng):
        return theta + rng.normal(size=2) if theta[0] < 0 else theta * np.inf

    options = {"rounds": 1, "n_samples": 200, "on_error": "drop", "random_state": 0}
    with pytest.warns(UserWarning, match=r"conditional on success(.|\n)*depends on a"):
        sequential(PRIOR, fails_above_zero, X_OBS, NPEEstimator(**QUICK), **options)


def test_missing_entries_are_kept_for_an_estimator_that_takes_them():
    def gap(theta, rng):
        return np.where(rng.random(2) < [0.0, 0.3], np.nan, theta + rng.normal(size=2))

    options = {"rounds": 1, "n_samples": 100, "random_state": 0}
    npe = NPEEstimator(missing="mask", **QUICK)
    _, theta, X = sequential(PRIOR, gap, X_OBS, npe, **options)
    assert 0 < np.isnan(X[:, 1]).sum() < len(theta) == 100
    with pytest.raises(RuntimeError, match="missing='mask'"):
        sequential(PRIOR, gap, X_OBS, NPEEstimator(**QUICK), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "skip"}, "on_error must be 'raise', 'drop' or 'nan'; got 'skip'"),
        ({"rounds": 0}, "positive integer; got 0"),
        ({"n_samples": 1.5}, "positive integer; got 1.5"),
        ({"X_obs": [1.0]}, r"one observation.*\(50, 2\); got shape \(1,\)"),
        ({"X_obs": [[1.0, 2.0]]}, r"one observation.*got shape \(1, 2\)"),
        ({"estimator": CMPEEstimator()}, "CMPE has no density. Use FMPEEstimator"),
    ],
)
def test_bad_requests_fail_before_training(options, message):
    simulator = FunctionTransformer(noisy)
    arguments = {"X_obs": X_OBS, "estimator": None, "n_samples": 50, "random_state": 0, **options}
    with pytest.raises(ValueError, match=message):
        sequential(PRIOR, simulator, **arguments)


def test_rounds_of_flow_matching_come_closer():
    prior = JointPrior({"rate": stats.uniform(0, 100)})
    fmpe = FMPEEstimator(hidden_layer_sizes=(32,), n_estimators=1, max_iter=10)
    options = {"rounds": 2, "n_samples": 300, "random_state": 0}
    X_obs = np.array([7, 5, 9, 6, 8])
    fmpe, theta, _ = sequential(
        prior, lambda theta, rng: rng.poisson(theta, size=5), X_obs, fmpe, **options
    )
    assert np.median(theta) < 25
    assert abs(fmpe.sample_posterior(X_obs).mean() - 7.2) < 1.5  # exact: Gamma(36, 1 / 5)


def test_progress_is_shown_on_request(capsys):
    simulator = FunctionTransformer(noisy)
    options = {"rounds": 1, "n_samples": 50, "random_state": 0}
    sequential(PRIOR, simulator, X_OBS, NPEEstimator(**QUICK), **options)
    assert capsys.readouterr() == ("", "")
    sequential(PRIOR, simulator, X_OBS, NPEEstimator(**QUICK), verbose=1, **options)
    assert "sequential" in capsys.readouterr().err
