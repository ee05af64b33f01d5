"""Fitted estimators that several tests of calibration share."""

import pytest

from skbi import DoubleMoonSimulator, NPEEstimator, simulate

QUICK = {"max_iter": 3, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}


@pytest.fixture(scope="session")
def quick():
    """Return options of an estimator that is fitted within a second."""
    return QUICK


@pytest.fixture(scope="session")
def pairs():
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=(5, 15))
    return simulate(prior, simulator, 2200, random_state=0)


@pytest.fixture(scope="session")
def npe(pairs):
    """Return an estimator whose first 200 pairs are held out."""
    theta, X = pairs
    return NPEEstimator(prior=DoubleMoonSimulator.prior(), **QUICK).fit(theta[200:], X[200:])


@pytest.fixture(scope="session")
def npe_of_large_sets():
    """Return an estimator of the default size, whose sums torch would split among threads."""
    theta, X = simulate(
        DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=200), 120, random_state=0
    )
    return NPEEstimator(max_iter=1, random_state=0).fit(theta, X), theta, X
