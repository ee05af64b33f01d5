"""What is measured is what the checks of calibration would measure themselves."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from sklearn.linear_model import LogisticRegression

from skbi.diagnosis.measurements import Measuring

THETA, X = gaussian_runs(200)


def measuring(**options):
    defaults = {
        "names": ["a", "b"],
        "level": 0.1,
        "budget": None,
        "seed": 0,
        "n_samples": 50,
        "n_jobs": None,
        "classifier": LogisticRegression(),
    }
    return Measuring(Gaussian(), **{**defaults, **options})


def noisy(theta, rng):
    return theta + rng.normal(size=2)


def fails_below_zero(theta, rng):
    return noisy(theta, rng) if theta[0] > 0 else theta * np.nan


def test_without_an_observation_only_simulations_are_measured():
    found = measuring().run(THETA, X, None, noisy, 0)
    assert list(found.seconds) == ["calibration", "held-out score"]
    assert found.drawn is found.local is found.replicated is None
    assert found.score is None
    assert found.names == ["a", "b"]
    assert ((found.recovery.ranks >= 0) & (found.recovery.ranks <= 50)).all()


def test_every_observation_is_measured():
    found = measuring().run(THETA, X, X[:3], noisy, 0)
    assert list(found.seconds)[2:] == ["observations", "local test", "posterior predictive"]
    assert found.local.p_value.shape == (3,)
    assert len(found.local.null_statistics) == 10  # as the level needs
    assert len(found.among_simulations) == len(found.among_replications) == 3
    np.testing.assert_array_equal(found.among_simulations[1].observed, X[1])


def test_failed_replications_are_left_out_and_warned_of():
    with pytest.warns(UserWarning, match="conditional on success"):
        found = measuring().run(THETA, X, [[0.0, 0.0]], fails_below_zero, 0)
    assert 0.3 < len(found.replicated[0]) / 500 < 0.7


def test_a_budget_takes_the_first_simulations():
    found = measuring(budget=1e-3).run(THETA, X, None, None, 0)
    np.testing.assert_array_equal(found.recovery.theta, THETA[:50])
    np.testing.assert_array_equal(found.X, X[:50])
    plenty = measuring(budget=1e3).run(THETA, X, X[0], noisy, 0)
    assert len(plenty.recovery.theta) == 200
    assert plenty.local is not None
