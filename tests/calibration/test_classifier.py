"""C2ST against the best classifier there is."""

import math
from functools import partial

import numpy as np
import pytest
from known_posterior import gaussian_runs
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold, cross_val_score

from skbi import c2st_score

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
