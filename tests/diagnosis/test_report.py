"""The report is one file with words, pictures and settings, and needs nothing else."""

import re

import pytest
from known_posterior import gaussian_runs
from scipy import stats
from sklearn.linear_model import LogisticRegression

from skbi import FMPEEstimator, JointPrior, NLEEstimator, NPEEstimator, diagnose

PRIOR = JointPrior({"a<b": stats.norm(), "b": stats.norm()})
OPTIONS = {"classifier": LogisticRegression(), "random_state": 0}
QUICK = {"max_iter": 2, "hidden_layer_sizes": (8,), "random_state": 0}


def noisy(theta, rng):
    return theta + rng.normal(size=2)


@pytest.fixture(scope="module")
def report():
    theta, X = gaussian_runs(400)
    npe = NPEEstimator(prior=PRIOR, n_transforms=1, n_estimators=1, **QUICK).fit(
        theta[:300], X[:300]
    )
    return diagnose(npe, theta[300:], X[300:], X[0], noisy, n_samples=50, **OPTIONS)


def test_the_file_holds_everything(report, tmp_path):
    text = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"src='(.{22})", text)
    assert pictures == ["data:image/png;base64,"] * len(report.figures)
    assert not re.search(r"(href|src)='?(http|file)", text)
    for word in ("numpy", "random_state", "NPEEstimator", "max_iter=2", "a&lt;b", "local test"):
        assert word in text
    assert "a<b" not in text
    for finding in report.findings:
        assert finding.check in text


def test_all_pictures_are_there(report):
    assert list(report.figures) == [
        "posterior", "predictive", "local", "recovery", "contraction", "coverage", "ranks", "loss",
    ]  # fmt: skip
    assert report.figures is report.figures  # drawn once
    assert report.figures["loss"].ax_.get_xlabel() == "epoch"


@pytest.mark.filterwarnings("ignore:.*of the draws lie outside the range")
@pytest.mark.parametrize("kind", [NLEEstimator, FMPEEstimator])
def test_other_estimators_are_diagnosed_as_far_as_they_can(kind):
    theta, X = gaussian_runs(105)
    estimator = kind(prior=PRIOR, **QUICK).fit(theta[:100], X[:100])
    found = diagnose(estimator, theta[100:], X[100:], X[:1], n_samples=20, **OPTIONS)
    checked = {f.check: f.passed for f in found.findings}
    assert (checked["sampler"] is None) is (kind is FMPEEstimator)
    assert checked["length of training"] is not None
