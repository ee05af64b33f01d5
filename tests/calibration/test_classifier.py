"""C2ST against the best classifier there is; L-C2ST of exact posteriors and of wrong ones."""

import math
from functools import partial

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.svm import LinearSVC

from skbi import c2st_score, calibration_report, lc2st

classifiers = pytest.mark.parametrize("classifier", ["mlp", "forest"])


@classifiers
def test_c2st_of_two_gaussians_approaches_the_best_classifier(classifier):
    """Two normals a distance m apart are told apart with accuracy Phi(m / 2) at best."""
    a, b = np.random.default_rng(0).normal(size=(2, 1000, 1))
    margin = {"mlp": 0.0, "forest": 0.06}[classifier]  # a forest of deep trees overfits
    for m in (0.0, 2.0):
        best = stats.norm.cdf(m / 2)
        error = math.sqrt(0.25 / 2000)
        score = c2st_score(a, b + m, classifier=classifier, random_state=0)
        assert -4 * error - margin * m / 2 < score - best < 4 * error


@classifiers
def test_c2st_repeats_and_ignores_units(classifier):
    a, b = np.random.default_rng(0).normal(size=(2, 100, 10))
    units = np.logspace(-3, 4, 10)
    score = partial(c2st_score, classifier=classifier, random_state=0)
    one = score(a, b)
    assert one == score(a, b, n_jobs=2)
    assert one == pytest.approx(score(a * units + 7, b * units + 7), abs=0.02)


def test_the_forest_is_that_of_scikit_learn_with_its_defaults():
    """Its accuracy is that of the plain recipe, for other seeds up to the noise."""
    a, b = np.random.default_rng(0).normal([[[0, 0]], [[1, 0]]], size=(2, 500, 2))
    rows = (np.vstack([a, b]) - a.mean(axis=0)) / a.std(axis=0)
    folds = KFold(5, shuffle=True, random_state=1)
    forest = RandomForestClassifier(random_state=1)
    recipe = cross_val_score(forest, rows, np.repeat([0, 1], 500), cv=folds).mean()
    assert c2st_score(a, b, classifier="forest", random_state=0) == pytest.approx(recipe, abs=0.03)


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)
    with pytest.raises(ValueError, match="same width"):
        c2st_score(theta, X[:, :1])
    with pytest.raises(ValueError, match="finite"):
        c2st_score(theta, X * np.nan)
    with pytest.raises(ValueError, match="at least cv=5"):
        c2st_score(theta, X[:4])
    with pytest.raises(ValueError, match='"mlp" or "forest"; got \'tree\''):
        c2st_score(theta, X, classifier="tree")


class Ignorant:
    """The prior, whatever x: right on average over x, and wrong at every single one."""

    def sample_posterior(self, X, n_samples, *, random_state=None):
        return np.random.default_rng(random_state).normal(size=(len(X), n_samples, 2))


FAST = {"classifier": LogisticRegression(), "n_null": 9, "n_samples": 50}


def test_local_p_values_of_exact_posteriors_are_uniform():
    p_values = []
    for seed in range(40):
        theta, X = gaussian_runs(60, seed=seed)
        p_values.append(
            lc2st(Gaussian(), theta, X, [[1.0, 0.0]], random_state=seed, **FAST).p_value
        )
    counts = np.bincount(np.ceil(np.ravel(p_values) * 5 - 1e-9).astype(int), minlength=6)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_error_that_averages_out_is_seen_at_the_observation():
    theta, X = gaussian_runs(1000)
    assert (
        calibration_report(Ignorant(), theta, X, n_samples=200, random_state=0).verdicts
        == ["calibrated, as the prior is"] * 2
    )
    found = lc2st(Ignorant(), theta, X, [[1.0, 0.5], [-1.0, 0.5]], n_null=19, random_state=0)
    np.testing.assert_allclose(found.p_value, 0.05)
    d, draws = found.probabilities, found.samples[..., 0]
    assert np.corrcoef(d[0], draws[0])[0, 1] > 0.5  # truths are higher than draws where x is 1
    assert np.corrcoef(d[1], draws[1])[0, 1] < -0.5
    assert "p = 0.05" in str(found)


def test_null_classifiers_are_shared_and_jobs_change_nothing():
    theta, X = gaussian_runs(100)
    both = lc2st(Gaussian(), theta, X, X[:2], random_state=0, n_jobs=2, **FAST)
    again = lc2st(Gaussian(), theta, X, X[:2], random_state=0, **FAST)
    np.testing.assert_array_equal(both.statistic, again.statistic)
    np.testing.assert_array_equal(both.null_statistics, again.null_statistics)
    assert both.null_statistics.shape == (9, 2)
    np.testing.assert_allclose(
        both.p_value, (1 + (both.null_statistics >= both.statistic).sum(axis=0)) / 10
    )


@pytest.mark.parametrize("X", [np.random.default_rng(0).normal(size=(100, 30)),
                               np.random.default_rng(0).normal(size=(100, 8, 2))])  # fmt: skip
def test_wide_vectors_and_sets_are_tested_too(X):
    class FromMean:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, 1))
            return np.mean(X, axis=tuple(range(1, np.ndim(X))))[:, None, None] + noise

    theta = X.mean(axis=tuple(range(1, X.ndim)))[:, None]
    theta = theta + np.random.default_rng(1).normal(size=theta.shape)
    found = lc2st(FromMean(), theta, X, X[:2], random_state=0, **FAST)
    assert found.samples.shape == (2, 50, 1)
    assert found.p_value.min() > 0.1


def test_local_requests_that_cannot_be_answered_say_why():
    theta, X = gaussian_runs(50)
    with pytest.raises(TypeError, match="predict_proba"):
        lc2st(Gaussian(), theta, X, X[:1], classifier=LinearSVC())
    with pytest.raises(ValueError, match="n_null must be at least 1"):
        lc2st(Gaussian(), theta, X, X[:1], n_null=0)
