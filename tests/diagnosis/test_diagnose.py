"""A good fit passes, and what is wrong is named first."""

import numpy as np
import pytest
from known_posterior import Gaussian, gaussian_runs
from scipy import stats
from sklearn.linear_model import LogisticRegression

from skbi import JointPrior, diagnose
from skbi.diagnosis.report import Diagnosis

PRIOR = JointPrior({"a": stats.norm(), "b": stats.norm()})
OPTIONS = {
    "n_samples": 100,
    "names": ["a", "b"],
    "classifier": LogisticRegression(),
    "random_state": 0,
}


class Known(Gaussian):
    """It knows its prior."""

    prior = PRIOR


def noisy(theta, rng):
    return theta + rng.normal(size=2)


def test_an_exact_posterior_passes_every_check():
    theta, X = gaussian_runs(400)
    report = diagnose(Known(), theta, X, X[0], noisy, **OPTIONS)
    assert report.passed
    assert {f.check for f in report.findings if f.passed is None} == {
        "length of training",
        "overfitting",
        "sampler",
    }
    assert str(report).splitlines()[-1].startswith("0 of 7 checks found something")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"scale": 2}, "underconfident"), ({"scale": 0.5}, "overconfident"), ({"shift": 1}, "high")],
)
def test_what_is_wrong_is_named_first(wrong, words):
    theta, X = gaussian_runs(400)
    report = diagnose(Known(**wrong), theta, X, **OPTIONS)
    assert not report.passed
    assert words in str(report).splitlines()[0]


def test_another_simulator_is_named():
    theta, X = gaussian_runs(400)
    report = diagnose(Known(), theta, X, [9.0, -9.0], noisy, **OPTIONS)
    assert "[!!] observation: it is unlike the simulations" in str(report)
    assert "[!!] posterior predictive: misfit" in str(report)


def test_the_report_repeats_and_keeps_its_seed():
    theta, X = gaussian_runs(60)
    options = {**OPTIONS, "random_state": np.random.default_rng(0)}
    report = diagnose(Known(), theta, X, X[:2], **options)
    seed = int(report.settings["random_state"])
    again = diagnose(Known(), theta, X, X[:2], **{**OPTIONS, "random_state": seed})
    assert str(report).splitlines()[:-1] == str(again).splitlines()[:-1]


def test_a_budget_leaves_out_what_does_not_fit():
    theta, X = gaussian_runs(2000)
    report = diagnose(Known(), theta, X, X[0], noisy, budget=1e-3, **OPTIONS)
    assert len(report.recovery.theta) == 50
    assert report.local is None
    assert "do not fit into the budget" in str(report)
    assert isinstance(report, Diagnosis)


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)
    with pytest.raises(ValueError, match="significance must lie between 0 and 1"):
        diagnose(Known(), theta, X, **{**OPTIONS, "significance": 0})
    with pytest.raises(ValueError, match="budget must be a positive number of seconds"):
        diagnose(Known(), theta, X, budget=0, **OPTIONS)
