"""A bias in one region is found there; exact posteriors raise false alarms at the stated rate."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats

from skbi.calibration.recovery import recover
from skbi.calibration.regions import worst_region

OPTIONS = {"n_samples": 100, "n_jobs": None}


class WrongAbove(Gaussian):
    """The first parameter is biased by a standard deviation where x_0 exceeds 1.2."""

    def sample_posterior(self, X, n_samples, *, random_state=None):
        samples = super().sample_posterior(X, n_samples, random_state=random_state)
        samples[..., 0] += 0.7 * (X[:, :1] > 1.2)
        return samples


def test_the_region_and_the_parameter_are_named():
    theta, X = gaussian_runs(1000)
    found = worst_region(recover(WrongAbove(), theta, X, random_state=0, **OPTIONS), ["a", "b"])
    assert (found.parameter, found.along, found.high) == ("a", "a", np.inf)
    assert found.bias == pytest.approx(1, abs=0.3)
    assert 0.4 < found.low < 1.4  # half of x
    assert found.p_value < 1e-6
    assert "a is off by +" in str(found)
    assert "posterior mean of a is above" in str(found)


def test_a_region_that_is_too_wide_is_found():
    theta, X = gaussian_runs(1000)
    found = worst_region(
        recover(Gaussian(scale=2), theta, X, random_state=0, **OPTIONS), ["a", "b"]
    )
    assert found.p_value < 1e-6
    assert found.spread == pytest.approx(0.5, abs=0.15)


def test_exact_posteriors_raise_false_alarms_at_most_at_the_stated_rate():
    n_alarms = 0
    for seed in range(40):
        theta, X = gaussian_runs(100, seed=seed)
        recovery = recover(Gaussian(), theta, X, random_state=seed, **OPTIONS)
        n_alarms += worst_region(recovery, ["a", "b"]).p_value < 0.1
    assert n_alarms <= stats.binom(40, 0.1).ppf(0.999)


def test_few_simulations_have_no_regions():
    theta, X = gaussian_runs(39)
    assert worst_region(recover(Gaussian(), theta, X, random_state=0, **OPTIONS), "ab") is None
