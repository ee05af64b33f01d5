"""The report names what is wrong, and raises false alarms at the stated rate."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats

from skbi import calibration_report, coverage_score


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ({}, "calibrated"),
        ({"scale": 0.5}, "overconfident"),
        ({"scale": 2.0}, "underconfident"),
        ({"shift": 1.0}, "biased high"),
        ({"shift": -1.0}, "biased low"),
        ({"shift": 1.0, "scale": 0.5}, "biased high, overconfident"),
        ({"shift": 3.0}, "biased high"),  # beyond all draws: cut off, not narrow
        ({"shift": -4.0, "scale": 0.5}, "biased low"),
    ],
)
def test_the_report_names_what_is_wrong(wrong, verdict):
    theta, X = gaussian_runs()
    report = calibration_report(
        Gaussian(**wrong), theta, X, n_samples=200, names=["a", "b"], random_state=0
    )
    assert report.verdicts == [verdict] * 2
    if "scale" not in wrong and abs(wrong.get("shift", 0)) <= 1:
        np.testing.assert_allclose(report.bias, wrong.get("shift", 0), atol=0.1)
    assert str(report).count(verdict) == 2
    assert "2000 runs" in str(report)


def test_the_report_raises_false_alarms_at_the_stated_rate():
    n_alarms = 0
    for seed in range(200):
        theta, X = gaussian_runs(300, seed=seed)
        report = calibration_report(Gaussian(), theta, X, n_samples=100, random_state=seed)
        n_alarms += report.verdicts != ["calibrated"] * 2
    low, high = stats.binom(200, 0.05).ppf([0.001, 0.999])
    assert n_alarms <= high
    assert n_alarms >= low  # corrected for six tests, of which four are independent


def test_a_wrong_shape_is_named():
    """The same mean and sd of the normal scores, another shape: a posterior of two points."""

    class Skewed:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            rng = np.random.default_rng(random_state)
            return X[:, None] + rng.normal(size=(len(X), n_samples, 1))

    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 1))
    theta = X + rng.choice([-1, 1], size=X.shape) * rng.uniform(0.8, 1.2, size=X.shape)
    theta = X + (theta - X) / (theta - X).std()
    report = calibration_report(Skewed(), theta, X, n_samples=500, random_state=0)
    assert report.verdicts == ["wrong shape"]


def test_discrete_parameters_are_calibrated_under_ranks():
    """A coin with known posterior probability."""

    class Coin:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            rng = np.random.default_rng(random_state)
            return (rng.random((len(X), n_samples, 1)) < X[:, None]).astype(float)

    rng = np.random.default_rng(0)
    X = rng.uniform(size=(2000, 1))
    theta = (rng.random((2000, 1)) < X).astype(float)
    assert coverage_score(Coin(), theta, X, n_samples=100, random_state=0) >= 0.97
    assert calibration_report(Coin(), theta, X, n_samples=100, random_state=0).verdicts == [
        "calibrated"
    ]


def test_the_report_of_an_estimator_has_names_and_score(npe, pairs):
    theta, X = pairs[0][:200], pairs[1][:200]
    report = calibration_report(npe, theta, X, n_samples=50, random_state=0)
    assert list(report.names) == ["d", "sigma", "t"]
    assert report.log_score == npe.score(theta, X)
    assert "held-out log score" in str(report)


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)
    with pytest.raises(ValueError, match="at least 2 runs"):
        calibration_report(Gaussian(), theta[:1], X[:1])
    with pytest.raises(ValueError, match="names must hold 2"):
        calibration_report(Gaussian(), theta, X, names=["a"])
