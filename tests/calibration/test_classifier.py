"""C2ST against the best classifier there is."""

import math

import numpy as np
import pytest
from known_posterior import gaussian_runs
from scipy import stats

from skbi import c2st_score


def test_c2st_of_two_gaussians_approaches_the_best_classifier():
    """Two normals a distance m apart are told apart with accuracy Phi(m / 2) at best."""
    a, b = np.random.default_rng(0).normal(size=(2, 1000, 1))
    for m in (0.0, 2.0):
        best = stats.norm.cdf(m / 2)
        error = math.sqrt(0.25 / 2000)
        assert abs(c2st_score(a, b + m, random_state=0) - best) < 4 * error


def test_c2st_repeats_and_ignores_units():
    a, b = np.random.default_rng(0).normal(size=(2, 100, 10))
    units = np.logspace(-3, 4, 10)
    one = c2st_score(a, b, random_state=0)
    assert one == c2st_score(a, b, random_state=0, n_jobs=2)
    assert one == pytest.approx(c2st_score(a * units + 7, b * units + 7, random_state=0), abs=0.02)


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)
    with pytest.raises(ValueError, match="same width"):
        c2st_score(theta, X[:, :1])
    with pytest.raises(ValueError, match="finite"):
        c2st_score(theta, X * np.nan)
    with pytest.raises(ValueError, match="at least cv=5"):
        c2st_score(theta, X[:4])
