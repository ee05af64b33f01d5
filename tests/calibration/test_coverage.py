"""Coverage of posteriors whose truth is known, against slow references and exact results."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_posterior import KINDS, Gaussian, gaussian_runs
from scipy import stats
from sklearn.model_selection import GridSearchCV

from skbi import (
    DoubleMoonSimulator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    coverage_curve,
    coverage_score,
    tarp_curve,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1, 3])
def test_an_exact_posterior_scores_one(kind, p):
    theta, X = gaussian_runs(p=p)
    score = coverage_score(Gaussian(), theta, X, n_samples=200, kind=kind, random_state=0)
    assert 0.97 <= score <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [{"scale": 0.5}, {"scale": 2.0}, {"shift": 1.0}])
def test_wrong_posteriors_score_lower(kind, wrong):
    theta, X = gaussian_runs()
    score = coverage_score(Gaussian(**wrong), theta, X, n_samples=200, kind=kind, random_state=0)
    assert score < 0.93


def test_the_score_is_the_area_between_curve_and_diagonal():
    """Central intervals of a posterior with half the sd, in closed form."""
    theta, X = gaussian_runs(20_000, p=1)
    a = np.linspace(0.0005, 0.9995, 1000)
    empirical = 2 * stats.norm.cdf(stats.norm.ppf((1 + a) / 2) / 2) - 1
    expected = 1 - 2 * np.abs(empirical - a).mean()
    for kind in ("rank", "sigma"):
        options = {"n_samples": 500, "kind": kind, "random_state": 0}
        score = coverage_score(Gaussian(scale=0.5), theta, X, **options)
        assert score == pytest.approx(expected, abs=0.01)


def test_raw_values_are_one_score_a_parameter():
    theta, X = gaussian_runs()
    options = {"n_samples": 100, "random_state": 0}
    raw = coverage_score(Gaussian(), theta, X, multioutput="raw_values", **options)
    assert raw.shape == (2,)
    assert raw.mean() == coverage_score(Gaussian(), theta, X, **options)
    joint = coverage_score(Gaussian(), theta, X, kind="tarp", multioutput="raw_values", **options)
    assert joint.shape == (1,)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_of_an_exact_posterior_stay_in_their_band(kind):
    theta, X = gaussian_runs(1000)
    model = Gaussian()
    samples = model.sample_posterior(X, 200, random_state=1)
    density = None
    if kind == "hpd":
        rows = samples.swapaxes(0, 1)
        density = model.log_prob(theta, X), np.array([model.log_prob(t, X) for t in rows]).T
    curve = coverage_curve(
        theta, samples, kind=kind, log_density=density, confidence=0.9999, random_state=0
    )
    nominal, empirical, lower, upper = curve
    assert empirical.shape == (len(nominal), 1 if kind in ("hpd", "tarp") else 2)
    assert (np.diff(empirical, axis=0) >= 0).all()
    assert ((lower[:, None] <= empirical) & (empirical <= upper[:, None])).all()
    sigma = stats.norm.ppf((1 + nominal) / 2)
    np.testing.assert_allclose(sigma[:30], np.arange(30) / 10, atol=1e-9)


def test_sigma_coverage_is_its_formula():
    theta, X = gaussian_runs(100)
    samples = Gaussian().sample_posterior(X, 50, random_state=0)
    nominal, empirical, *_ = coverage_curve(theta, samples, kind="sigma")
    for i, k in enumerate(np.arange(len(nominal)) / 10):
        inside = np.abs(theta - samples.mean(axis=1)) / samples.std(axis=1) <= k + 1e-12
        np.testing.assert_allclose(empirical[i], inside.mean(axis=0))
    assert (empirical[-1] == 1).all()


def test_tarp_agrees_with_a_slow_reference():
    """Lemos et al. 2023, algorithm 2, with loops; the truths scaled to the unit box."""
    rng = np.random.default_rng(0)
    theta, samples = rng.normal(size=(60, 3)), 0.7 * rng.normal(size=(60, 101, 3))
    references = rng.uniform(-2, 2, size=theta.shape)
    low, high = theta.min(axis=0), theta.max(axis=0)
    shares = []
    for truth, draws, centre in zip(theta, samples, references, strict=True):
        radius = math.dist((truth - low) / (high - low), (centre - low) / (high - low))
        inside = [
            math.dist((d - low) / (high - low), (centre - low) / (high - low)) < radius
            for d in draws
        ]
        shares.append(np.mean(inside))
    nominal, empirical, *_ = tarp_curve(theta, samples, references=references, random_state=0)
    # a share j / 101 lies in the slot from j / 102 to (j + 1) / 102
    slow = [(np.array(shares) * 101 / 102 <= a - 1 / 102).mean() for a in nominal]
    fast = [(np.array(shares) * 101 / 102 <= a).mean() for a in nominal]
    assert (np.array(slow) <= empirical[:, 0]).all()
    assert (empirical[:, 0] <= np.array(fast)).all()


def test_hpd_agrees_with_a_slow_reference():
    """Of a circular Gaussian, the level of theta is the mass nearer to the mean: chi-squared."""
    theta, X = gaussian_runs(300, p=2)
    model = Gaussian(scale=0.8)
    samples = model.sample_posterior(X, 2000, random_state=0)
    densities = np.array([model.log_prob(t, X) for t in samples.swapaxes(0, 1)]).T
    _, empirical, *_ = coverage_curve(
        theta, samples, kind="hpd", log_density=(model.log_prob(theta, X), densities)
    )
    level = stats.chi2(2).cdf((((theta - X / 2) / model.sd) ** 2).sum(axis=1))
    nominal = stats.norm.cdf(np.arange(len(empirical)) / 10) * 2 - 1
    exact = (level[:, None] <= nominal).mean(axis=0)
    assert np.abs(empirical[:, 0] - exact).max() < 0.03  # 2,000 draws place a level to 0.01


def test_hpd_of_an_nle_is_that_of_the_posterior():
    """Its likelihood must be multiplied by the prior: here of a count, by ranks and by density."""
    prior = JointPrior({"count": stats.binom(5, 0.2)})
    theta = prior.sample(2500, random_state=0)
    X = theta + 2 * np.random.default_rng(1).normal(size=theta.shape)
    nle = NLEEstimator(prior=prior, max_iter=10, random_state=0).fit(theta[500:], X[500:])
    np.testing.assert_allclose(
        nle.log_posterior(theta, X), nle.log_prob(theta, X) + prior.log_prob(theta)
    )
    for kind in ("hpd", "rank"):
        options = {"kind": kind, "n_samples": 50, "random_state": 0}
        assert coverage_score(nle, theta[:500], X[:500], **options) > 0.95


@given(
    n=st.integers(1, 60),
    p=st.integers(1, 3),
    n_samples=st.integers(1, 20),
    kind=st.sampled_from(["rank", "sigma", "tarp"]),
    seed=st.integers(0, 2**31),
)
def test_scores_lie_between_zero_and_one(n, p, n_samples, kind, seed):
    rng = np.random.default_rng(seed)
    theta = rng.integers(3, size=(n, p)).astype(float)  # with ties

    class Anything:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            draws = np.random.default_rng(random_state).integers(3, size=(len(X), n_samples, p))
            return draws.astype(float)

    options = {"n_samples": n_samples, "kind": kind, "random_state": seed}
    score = coverage_score(Anything(), theta, theta, **options)
    assert 0 <= score <= 1
    assert score == coverage_score(Anything(), theta, theta, **options)


def test_it_is_a_scorer(pairs, quick):
    theta, X = pairs
    search = GridSearchCV(
        NPEEstimator(prior=DoubleMoonSimulator.prior(), **quick),
        {"n_transforms": [1, 2]},
        scoring=coverage_score,
        cv=2,
        error_score="raise",
    ).fit(theta[:200], X[:200])
    scores = search.cv_results_["mean_test_score"]
    assert ((scores > 0) & (scores <= 1)).all()


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)
    with pytest.raises(ValueError, match=r"kind must be one of \['rank'"):
        coverage_score(Gaussian(), theta, X, kind="ranks")
    with pytest.raises(ValueError, match="multioutput"):
        coverage_score(Gaussian(), theta, X, multioutput="mean")
    with pytest.raises(ValueError, match="log_density"):
        coverage_curve(theta, np.zeros((20, 5, 2)), kind="hpd")
    samples, density = np.zeros((20, 5, 2)), (np.zeros(20), np.zeros((20, 5)))
    bad = np.where(np.arange(20)[:, None, None] == 3, np.nan, samples)
    with pytest.raises(ValueError, match="those of observation 3 are not"):
        coverage_curve(theta, bad)
    with pytest.raises(ValueError, match="row 4"):
        coverage_curve(np.where(np.arange(20)[:, None] == 4, np.inf, theta), samples)
    with pytest.raises(ValueError, match=r"\(20,\) and \(20, 5\); got \(20,\) and \(5, 20\)"):
        coverage_curve(theta, samples, kind="hpd", log_density=(density[0], density[1].T))
    with pytest.raises(ValueError, match="must not be NaN"):
        coverage_curve(theta, samples, kind="hpd", log_density=(density[0] * np.nan, density[1]))
    with pytest.raises(ValueError, match=r"theta's shape \(20, 2\); got \(2,\)"):
        tarp_curve(theta, samples, references=[0, 0])
    with pytest.raises(ValueError, match=r"such as 0\.95; got 95"):
        coverage_curve(theta, samples, confidence=95)
