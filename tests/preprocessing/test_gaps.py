"""Laws of what fills missing entries."""

import numpy as np
import pytest

from skbi.preprocessing.gaps import Gaps

N, D, NOISE = 2000, 6, 0.2


@pytest.fixture(scope="module")
def problem():
    """Return a linear Gaussian model of two parameters, a fifth of its entries missing."""
    rng = np.random.default_rng(0)
    w, slope = rng.normal(size=(N, 2)), rng.normal(size=(2, D))
    x, present = w @ slope + NOISE * rng.normal(size=(N, D)), rng.random((N, D)) > 0.2
    x[~present] = 0
    gaps = Gaps.fit(w, x, present, np.ones(2), np.random.default_rng(1))
    return w, slope, x, present, gaps


def test_what_is_there_stays(problem):
    _, _, x, present, gaps = problem
    filled, _ = gaps.fill(x, present)
    np.testing.assert_array_equal(filled[present], x[present])


def test_what_is_missing_does_not_matter(problem):
    _, _, x, present, gaps = problem
    filled, found = gaps.fill(x, present)
    other, found_other = gaps.fill(np.where(present, x, 1e3), present)
    np.testing.assert_allclose(other, filled, atol=1e-8)
    np.testing.assert_allclose(found_other[0], found[0], atol=1e-8)


def test_gaps_are_filled_by_the_conditional_mean(problem):
    """The exact one is that of w given the entries that are there, times the slope."""
    _, slope, x, present, gaps = problem
    filled, (w_hat, precision, _) = gaps.fill(x[:200], present[:200])
    worst, off = [], []
    for i in range(200):
        some = slope[:, present[i]]
        exact_precision = np.eye(2) + some @ some.T / NOISE**2
        exact = np.linalg.solve(exact_precision, some @ x[i, present[i]] / NOISE**2)
        sd = np.sqrt(np.diag(np.linalg.inv(exact_precision)))
        worst.append(np.abs((w_hat[i] - exact) / sd).max())
        missing = ~present[i]
        off.extend(filled[i, missing] - w_hat[i] @ slope[:, missing])
        ratio = np.sqrt(np.diag(np.linalg.inv(precision[i]))) / sd
        assert (ratio > 0.8).all()  # wider where the fit to an observation is bad
    assert np.std(off) < 0.5 * NOISE
    assert np.median(worst) < 0.2  # exact standard deviations, by which the emulator is off


def test_without_any_entry_the_prior_is_left(problem):
    *_, gaps = problem
    _, (w_hat, precision, _) = gaps.fill(np.zeros((1, D)), np.zeros((1, D), dtype=bool))
    np.testing.assert_allclose(w_hat, 0, atol=0.01)
    np.testing.assert_allclose(precision[0], np.eye(2), atol=0.01)
