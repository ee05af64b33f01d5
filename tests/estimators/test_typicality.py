"""Typicality: p-values that are uniform for simulations, and tiny for what is unlike them."""

import numpy as np
import pytest
from scipy import stats

from skbi import NLEEstimator, NPEEstimator
from skbi.estimators.typicality import Typicality, describe_untypical, p_values_of_sets


@pytest.fixture(scope="module")
def typicality():
    rng = np.random.default_rng(0)
    return Typicality.fit(rng.normal(size=(3000, 3)), rng.normal(size=(1000, 3)))


def test_p_values_of_simulations_are_uniform(typicality):
    p_values = typicality.p_values(np.random.default_rng(1).normal(size=(1000, 3)))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def test_p_values_fall_with_the_distance(typicality):
    p_values = typicality.p_values(np.outer([0.0, 4.0, 8.0, 16.0], np.ones(3)))
    assert (np.diff(p_values) < 0).all()
    assert p_values[-1] < 1e-4


def test_a_set_is_as_unusual_as_its_worst_point_among_so_many():
    owners = np.array([0, 0, 0, 1, 2, 2])
    found = p_values_of_sets(np.array([0.5, 0.01, 0.2, 0.3, 0.9, 0.8]), owners)
    np.testing.assert_allclose(found, [0.03, 0.3, 1.0])


def test_a_warning_names_the_worst_row_and_counts_the_observations():
    assert describe_untypical(np.array([0.5, 0.002])) is None
    message = describe_untypical(np.array([0.5, 1e-7, 1e-5]))
    assert message.startswith("2 of 3 observations are unlike the training simulations")
    assert "row 1: about a share 1e-07" in message


@pytest.mark.parametrize("kind", [NPEEstimator, NLEEstimator])
def test_estimators_tell_typicality_and_warn_at_the_users_line(kind):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(400, 1))
    X = theta + 0.1 * rng.normal(size=(400, 2))
    estimator = kind(max_iter=2, random_state=0).fit(theta, X)
    assert estimator.typicality(X[:5]).shape == (5,)
    assert estimator.typicality(X[0]) > 1e-3 > estimator.typicality(X[0] + [5.0, -5.0])
    if kind is NPEEstimator:
        with pytest.warns(UserWarning, match="unlike the training simulations") as caught:
            estimator.sample_posterior(X[0] + [5.0, -5.0], 5)
        assert caught[0].filename == __file__
        estimator.sample_posterior(X[0] + [5.0, -5.0], 5, check_typicality=False)
