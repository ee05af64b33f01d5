"""Close all figures after each test, and share a fitted estimator."""

import sys

import numpy as np
import pytest
from scipy import stats

from skbi import JointPrior, NPEEstimator


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt = sys.modules.get("matplotlib.pyplot")
    if plt is not None:
        plt.close("all")


@pytest.fixture(scope="session")
def fitted():
    """Return an estimator with its training pairs."""
    prior = JointPrior({"a": stats.norm(), "b": stats.norm()})
    theta = prior.sample(300, random_state=0)
    X = theta + 0.5 * np.random.default_rng(1).normal(size=theta.shape)
    options = {"max_iter": 2, "n_transforms": 2, "random_state": 0}
    return NPEEstimator(prior=prior, **options).fit(theta, X), theta, X
