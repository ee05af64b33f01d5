"""Calibration of posteriors whose truth is known, against slow references and exact tests."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from scipy import stats
from sklearn.model_selection import GridSearchCV

from skbi import (
    DoubleMoonSimulator,
    JointPrior,
    NLEEstimator,
    NPEEstimator,
    c2st_score,
    calibration_report,
    coverage_curve,
    coverage_score,
    ecdf_band,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
    simulate,
    tarp_curve,
    uniformity_test,
)

KINDS = ["rank", "sigma", "hpd", "tarp"]
QUICK = {"max_iter": 3, "n_transforms": 2, "hidden_layer_sizes": (16,), "random_state": 0}


class Gaussian:
    """theta ~ N(0, I), x = theta + N(0, I): the posterior is N(x / 2, I / 2), or made wrong."""

    def __init__(self, shift=0.0, scale=1.0):
        self.shift, self.sd = shift * 0.5**0.5, scale * 0.5**0.5

    def sample_posterior(self, X, n_samples, *, random_state=None):
        noise = np.random.default_rng(random_state).normal(size=(len(X), n_samples, X.shape[1]))
        return (X / 2 + self.shift)[:, None] + self.sd * noise

    def log_prob(self, theta, X):
        return stats.norm.logpdf(theta, X / 2 + self.shift, self.sd).sum(axis=1)


def runs(n=2000, p=2, seed=0):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, p))
    return theta, theta + rng.normal(size=(n, p))


# ---- scores and curves of a known truth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1, 3])
def test_an_exact_posterior_scores_one(kind, p):
    theta, X = runs(p=p)
    score = coverage_score(Gaussian(), theta, X, n_samples=200, kind=kind, random_state=0)
    assert 0.97 <= score <= 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [{"scale": 0.5}, {"scale": 2.0}, {"shift": 1.0}])
def test_wrong_posteriors_score_lower(kind, wrong):
    theta, X = runs()
    score = coverage_score(Gaussian(**wrong), theta, X, n_samples=200, kind=kind, random_state=0)
    assert score < 0.93


def test_the_score_is_the_area_between_curve_and_diagonal():
    """Central intervals of a posterior with half the sd, in closed form."""
    theta, X = runs(20_000, p=1)
    a = np.linspace(0.0005, 0.9995, 1000)
    empirical = 2 * stats.norm.cdf(stats.norm.ppf((1 + a) / 2) / 2) - 1
    expected = 1 - 2 * np.abs(empirical - a).mean()
    for kind in ("rank", "sigma"):
        options = {"n_samples": 500, "kind": kind, "random_state": 0}
        score = coverage_score(Gaussian(scale=0.5), theta, X, **options)
        assert score == pytest.approx(expected, abs=0.01)


def test_raw_values_are_one_score_a_parameter():
    theta, X = runs()
    options = {"n_samples": 100, "random_state": 0}
    raw = coverage_score(Gaussian(), theta, X, multioutput="raw_values", **options)
    assert raw.shape == (2,)
    assert raw.mean() == coverage_score(Gaussian(), theta, X, **options)
    joint = coverage_score(Gaussian(), theta, X, kind="tarp", multioutput="raw_values", **options)
    assert joint.shape == (1,)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_of_an_exact_posterior_stay_in_their_band(kind):
    theta, X = runs(1000)
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
    theta, X = runs(100)
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
    theta, X = runs(300, p=2)
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
    theta = prior.sample(3000, random_state=0)
    X = theta + 2 * np.random.default_rng(1).normal(size=theta.shape)
    nle = NLEEstimator(prior=prior, max_iter=10, random_state=0).fit(theta[1000:], X[1000:])
    np.testing.assert_allclose(
        nle.log_posterior(theta, X), nle.log_prob(theta, X) + prior.log_prob(theta)
    )
    for kind in ("hpd", "rank"):
        options = {"kind": kind, "n_samples": 50, "random_state": 0}
        assert coverage_score(nle, theta[:1000], X[:1000], **options) > 0.95


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


# ---- ranks


@given(n_samples=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_ranks_are_counted_and_ties_broken_within_their_range(n_samples, seed):
    rng = np.random.default_rng(seed)
    theta, samples = rng.integers(4, size=(20, 2)), rng.integers(4, size=(20, n_samples, 2))
    ranks = sbc_ranks(theta, samples, random_state=seed)
    for i in range(20):
        for j in range(2):
            below = sum(s < theta[i, j] for s in samples[i, :, j])
            upto = sum(s <= theta[i, j] for s in samples[i, :, j])
            assert below <= ranks[i, j] <= upto


def test_the_uniformity_test_is_exact():
    """Its p-values, of uniform ranks, are at most p with probability p, and nearly that."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(51, size=(100, 2000))
    p_values = uniformity_test(ranks, 50)
    for a in (0.01, 0.05, 0.2, 0.5):
        found, error = (p_values <= a).mean(), math.sqrt(a * (1 - a) / 2000)
        assert a - 4 * error - 0.02 < found < a + 4 * error  # discrete: a little below


def test_the_band_holds_the_whole_curve_with_its_confidence():
    rng = np.random.default_rng(0)
    levels = np.arange(1, 20) / 20
    lower, upper = ecdf_band(200, levels, 0.9)
    u = rng.random((4000, 200, 1))
    share = (u <= levels).mean(axis=1)
    inside = ((lower <= share) & (share <= upper)).all(axis=1).mean()
    assert 0.9 - 4 * math.sqrt(0.09 / 4000) < inside < 0.93


def test_the_band_of_a_single_level_is_binomial():
    lower, upper = ecdf_band(50, [0.3], 0.95)
    inside = stats.binom(50, 0.3).cdf(50 * upper) - stats.binom(50, 0.3).cdf(50 * lower - 1)
    assert inside[0] >= 0.95
    narrower = stats.binom(50, 0.3).cdf(50 * upper - 1) - stats.binom(50, 0.3).cdf(50 * lower)
    assert narrower[0] < 0.95


# ---- the report


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
    theta, X = runs()
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
        theta, X = runs(300, seed=seed)
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


# ---- estimators


@pytest.fixture(scope="module")
def pairs():
    prior, simulator = DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=(5, 15))
    return simulate(prior, simulator, 2200, random_state=0)


@pytest.fixture(scope="module")
def npe(pairs):
    theta, X = pairs
    return NPEEstimator(prior=DoubleMoonSimulator.prior(), **QUICK).fit(theta[200:], X[200:])


@pytest.fixture(scope="module")
def whole():
    """Return an estimator of the default size, whose sums torch would split among threads."""
    theta, X = simulate(
        DoubleMoonSimulator.prior(), DoubleMoonSimulator(n_points=200), 120, random_state=0
    )
    return NPEEstimator(max_iter=1, random_state=0).fit(theta, X), theta, X


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_jobs_and_the_backend_change_nothing(whole, kind):
    npe, theta, X = whole
    options = {"n_samples": 200, "kind": kind, "multioutput": "raw_values", "random_state": 1}
    one = coverage_score(npe, theta, X, **options)
    np.testing.assert_array_equal(coverage_score(npe, theta, X, n_jobs=2, **options), one)
    for backend in ("loky", "threading"):
        with parallel_config(backend=backend, n_jobs=2):
            np.testing.assert_array_equal(coverage_score(npe, theta, X, **options), one)


def test_a_dask_cluster_changes_nothing(npe, pairs):
    distributed = pytest.importorskip("distributed")
    theta, X = pairs[0][:200], pairs[1][:200]
    options = {"n_samples": 30, "multioutput": "raw_values", "random_state": 1}
    one = coverage_score(npe, theta, X, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dask and its event loop
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster),
            parallel_config(backend="dask"),
        ):
            np.testing.assert_array_equal(coverage_score(npe, theta, X, **options), one)


def test_it_is_a_scorer(pairs):
    theta, X = pairs
    search = GridSearchCV(
        NPEEstimator(prior=DoubleMoonSimulator.prior(), **QUICK),
        {"n_transforms": [1, 2]},
        scoring=coverage_score,
        cv=2,
        error_score="raise",
    ).fit(theta[:200], X[:200])
    scores = search.cv_results_["mean_test_score"]
    assert ((scores > 0) & (scores <= 1)).all()


def test_the_report_of_an_estimator_has_names_and_score(npe, pairs):
    theta, X = pairs[0][:200], pairs[1][:200]
    report = calibration_report(npe, theta, X, n_samples=50, random_state=0)
    assert list(report.names) == ["d", "sigma", "t"]
    assert report.log_score == npe.score(theta, X)
    assert "held-out log score" in str(report)


def test_columns_in_another_order_are_refused(npe, pairs):
    frame = pd.DataFrame(pairs[0][:50], columns=["d", "sigma", "t"])
    options = {"n_samples": 10, "random_state": 0}
    score = coverage_score(npe, frame, pairs[1][:50], **options)
    assert score == coverage_score(npe, pairs[0][:50], pairs[1][:50], **options)
    for method in (npe.log_prob, lambda theta, X: coverage_score(npe, theta, X)):
        with pytest.raises(ValueError, match=r"those of fit.*got \['t', 'd', 'sigma'\]"):
            method(frame[["t", "d", "sigma"]], pairs[1][:50])


def test_runs_are_known_to_be_simulated_and_raise_no_alarm(npe, pairs):
    X = [x + 100 for x in pairs[1][:60]]
    coverage_score(npe, pairs[0][:60], X, n_samples=10, random_state=0)  # warnings are errors
    with pytest.warns(UserWarning, match="unlike the training"):
        npe.sample_posterior(X, 10)


def test_progress_is_shown_on_request(capsys):
    theta, X = runs(100)
    coverage_score(Gaussian(), theta, X, n_samples=10, random_state=0)
    assert capsys.readouterr() == ("", "")
    coverage_score(Gaussian(), theta, X, n_samples=10, random_state=0, verbose=1)
    assert "calibration" in capsys.readouterr().err


# ---- bad input


def test_bad_requests_say_what_was_expected():
    theta, X = runs(20)

    class Drawless:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.zeros((len(X), 2))

    class Densityless:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.zeros((len(X), n_samples, 2))

    with pytest.raises(ValueError, match=r"kind must be one of \['rank'"):
        coverage_score(Gaussian(), theta, X, kind="ranks")
    with pytest.raises(ValueError, match="multioutput"):
        coverage_score(Gaussian(), theta, X, multioutput="mean")
    with pytest.raises(ValueError, match="20 and 19"):
        coverage_score(Gaussian(), theta, X[1:])
    with pytest.raises(ValueError, match=r"theta must have shape \(n, p\)"):
        coverage_score(Gaussian(), theta[:, 0], X)
    with pytest.raises(ValueError, match=r"\(20, n_samples, 2\); got \(20, 2\)"):
        coverage_score(Drawless(), theta, X)
    with pytest.raises(TypeError, match="Densityless has none"):
        coverage_score(Densityless(), theta, X, kind="hpd")
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
    with pytest.raises(ValueError, match=r"such as 0\.95; got 95"):
        ecdf_band(10, [0.5], 95)
    with pytest.raises(ValueError, match="levels must increase"):
        ecdf_band(10, [0.5, 0.2])
    for ranks in ([1, 2], np.empty((0, 1)), [[7]], [[-1]]):
        with pytest.raises(ValueError, match=r"ranks must have shape .* 0 \.\.\. 5"):
            uniformity_test(ranks, 5)
    with pytest.raises(ValueError, match="at least 2 runs"):
        calibration_report(Gaussian(), theta[:1], X[:1])
    with pytest.raises(ValueError, match="names must hold 2"):
        calibration_report(Gaussian(), theta, X, names=["a"])
    with pytest.raises(ValueError, match="same width"):
        c2st_score(theta, X[:, :1])
    with pytest.raises(ValueError, match="finite"):
        c2st_score(theta, X * np.nan)
    with pytest.raises(ValueError, match="at least cv=5"):
        c2st_score(theta, X[:4])
    with pytest.raises(TypeError, match=r"needs an NPEEstimator or NLEEstimator.*got Gaussian"):
        misspecification_score(Gaussian(), X)


# ---- two samples


def test_c2st_of_two_gaussians_approaches_the_best_classifier():
    """Two normals a distance m apart are told apart with accuracy Phi(m / 2) at best."""
    a, b = np.random.default_rng(0).normal(size=(2, 1000, 1))
    for m in (0.0, 2.0):
        best = stats.norm.cdf(m / 2)
        error = math.sqrt(0.25 / 2000)
        assert abs(c2st_score(a, b + m, random_state=0) - best) < 4 * error


def test_c2st_repeats_and_ignores_units():
    a, b = np.random.default_rng(0).normal(size=(2, 100, 10))
    units = np.logspace(-3, 4, 10)
    one = c2st_score(a, b, random_state=0)
    assert one == c2st_score(a, b, random_state=0, n_jobs=2)
    assert one == pytest.approx(c2st_score(a * units + 7, b * units + 7, random_state=0), abs=0.02)


# ---- predictive checks and misspecification


def test_predictions_come_from_the_posterior():
    """Data are theta + noise of sd 1: replications have mean x / 2 and variance 3 / 2."""
    from sklearn.preprocessing import FunctionTransformer

    noise = np.random.default_rng(0)
    simulator = FunctionTransformer(lambda theta: theta + noise.normal(size=theta.shape))
    X = np.array([[1.0, 0.0], [-2.0, 3.0]])
    data = posterior_predictive(Gaussian(), simulator, X, n_samples=4000, random_state=0)
    assert data.shape == (2, 4000, 2)
    np.testing.assert_allclose(data.mean(axis=1), X / 2, atol=5 * math.sqrt(1.5 / 4000))
    np.testing.assert_allclose(data.var(axis=1), 1.5, rtol=5 * math.sqrt(2 / 4000))


def test_predicted_sets_come_as_sets(npe, pairs):
    sets = posterior_predictive(npe, DoubleMoonSimulator(n_points=(5, 15)), pairs[1][:2],
                                n_samples=3, random_state=0)  # fmt: skip
    assert sets.shape == (2, 3)
    assert sets[0, 0].shape[1] == 2
    with pytest.raises(ValueError, match="must be a batch"):
        posterior_predictive(npe, DoubleMoonSimulator(), pairs[1][0])


def vectors(n=2000, seed=0):
    """Six features of a curved two-dimensional surface, one with a heavy tail."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-1, 1, size=(n, 2))
    a, b = theta.T
    clean = np.column_stack([a, b, a**2, a * b, np.sin(3 * b), np.exp(2 * a)])
    return theta, clean + 0.05 * rng.standard_t(5, size=clean.shape)


@pytest.fixture(scope="module")
def surface():
    return NPEEstimator(**QUICK).fit(*vectors())


def test_p_values_of_fresh_simulations_are_uniform(surface):
    p = misspecification_score(surface, vectors(20_000, seed=1)[1])
    for a in (0.5, 0.1, 0.05, 0.01, 0.001):
        # 200 held-out simulations place a quantile with a relative error of 1 / sqrt(200 a)
        assert (p <= a).mean() < a * (1 + 4 / math.sqrt(200 * max(a, 0.1)))
    assert (p <= 0.1).mean() > 0.03


@pytest.mark.parametrize("feature", range(6))
def test_far_observations_are_flagged(surface, feature):
    _, X = vectors(100, seed=2)
    X[:, feature] += 10 * vectors()[1][:, feature].std()
    assert (misspecification_score(surface, X) < 1e-3).mean() >= 0.99
    with pytest.warns(UserWarning, match=r"of 100 observations are unlike .* row \d+"):
        surface.sample_posterior(X, 2)


def test_observations_off_the_surface_are_flagged(surface):
    """Each feature within its range, but not together."""
    rng = np.random.default_rng(3)
    _, X = vectors(100, seed=3)
    off = rng.permuted(X, axis=0)
    assert np.median(misspecification_score(surface, off)) < 1e-3


@pytest.mark.parametrize("n", [2, 30, 300, 2000])
@pytest.mark.parametrize("kind", ["normal", "counts", "coin and count"])
def test_far_data_are_flagged_and_fresh_ones_are_not_at_any_size(n, kind):
    def data(n, seed):
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=(n, 1))
        if kind == "normal":
            return theta, theta + rng.normal(size=(n, 2))
        X = rng.poisson(np.exp(theta / 2 + [0, 1]))
        return theta, X if kind == "counts" else np.column_stack([rng.random(n) < 0.5, X[:, 0]])

    npe = NPEEstimator(**QUICK).fit(*data(n, 0))
    fresh = misspecification_score(npe, data(4000, 1)[1])
    assert (fresh < 1e-3).mean() < 0.01
    assert (misspecification_score(npe, np.full((5, 2), 1e6)) < 1e-3).all()


def test_sets_of_nearly_the_trained_size_are_familiar(whole):
    npe, _, X = whole
    p_values = misspecification_score(npe, X[:, :-1])  # one point less, of 200
    assert (p_values < 0.05).mean() < 0.3  # 12 held-out sets


def test_far_sets_are_flagged(npe, pairs):
    X = list(pairs[1][:100])
    for far in ([x + 20 for x in X], [x * 30 for x in X], [np.tile(x, (40, 1)) for x in X]):
        assert (misspecification_score(npe, far) < 1e-3).mean() >= 0.99
    assert isinstance(misspecification_score(npe, X[0]), float)
    fresh = misspecification_score(npe, X)
    assert (fresh <= 0.1).mean() < 0.25  # 200 held-out sets, 100 tried: 0.1 +- 0.04


def test_a_point_far_outside_makes_a_set_of_an_nle_unlike():
    theta, X = vectors()
    nle = NLEEstimator(**QUICK).fit(theta, X)
    fresh = vectors(500, seed=1)[1].reshape(50, 10, 6)
    assert (misspecification_score(nle, fresh) < 0.01).mean() < 0.1
    fresh[:, 3, 2] += 20
    assert (misspecification_score(nle, fresh) < 1e-3).all()
