"""Runs of an estimator give the same result however they are split, and ask nothing it lacks."""

import warnings

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from known_posterior import KINDS, Gaussian, gaussian_runs
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skbi import (
    NPEEstimator,
    calibration_report,
    coverage_score,
    misspecification_score,
    posterior_predictive,
    sbc_ranks,
)
from skbi.calibration.runs import (
    credible_levels,
    default_parameter_names,
    estimator_ranks,
    parameter_names,
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_jobs_and_the_backend_change_nothing(npe_of_large_sets, kind):
    npe, theta, X = npe_of_large_sets
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


CHECKS = {
    "coverage": lambda e, theta, X: coverage_score(e, theta, X, n_samples=20, random_state=0),
    "hpd": lambda e, theta, X: coverage_score(
        e, theta[:9], X[:9], n_samples=20, kind="hpd", random_state=0
    ),
    "report": lambda e, theta, X: str(
        calibration_report(e, theta, X, n_samples=20, random_state=0)
    ),
    "typicality": lambda e, theta, X: misspecification_score(e, X[:9]),
    "predictive": lambda e, theta, X: posterior_predictive(
        e, lambda theta, rng: theta, X[:2], n_samples=3, random_state=0
    ),
}


@pytest.fixture(scope="module")
def search(quick):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(60, 2))
    X = theta + rng.normal(size=(60, 2))
    npe = NPEEstimator(**{**quick, "max_iter": 1})
    return GridSearchCV(npe, {"n_transforms": [1, 2]}, cv=2).fit(theta, X), theta, X


@pytest.mark.parametrize("check", CHECKS)
def test_of_a_search_the_best_estimator_is_checked(search, check):
    searched, theta, X = search
    found = CHECKS[check](searched, theta, X)
    np.testing.assert_array_equal(found, CHECKS[check](searched.best_estimator_, theta, X))
    unfitted = GridSearchCV(searched.estimator, {"n_transforms": [1, 2]})
    with pytest.raises(NotFittedError, match=r"GridSearchCV .*call its fit, with refit=True"):
        CHECKS[check](unfitted, theta, X)


def test_columns_in_another_order_are_refused(npe, pairs):
    frame = pd.DataFrame(pairs[0][:50], columns=["d", "sigma", "t"])
    options = {"n_samples": 10, "random_state": 0}
    score = coverage_score(npe, frame, pairs[1][:50], **options)
    assert score == coverage_score(npe, pairs[0][:50], pairs[1][:50], **options)
    for method in (npe.log_prob, lambda theta, X: coverage_score(npe, theta, X)):
        with pytest.raises(ValueError, match=r"those of fit.*got \['t', 'd', 'sigma'\]"):
            method(frame[["t", "d", "sigma"]], pairs[1][:50])


def test_the_columns_are_compared_with_the_names_of_any_estimator():
    class Named(Gaussian):
        parameter_names_in_ = np.array(["a", "b"], dtype=object)

    theta, X = gaussian_runs(20)
    coverage_score(Named(), pd.DataFrame(theta, columns=["a", "b"]), X, n_samples=5)
    with pytest.raises(ValueError, match=r"\['a', 'b'\]; got \['b', 'a'\]"):
        coverage_score(Named(), pd.DataFrame(theta, columns=["b", "a"]), X, n_samples=5)


def test_all_columns_are_accepted_where_the_estimator_was_given_no_names():
    class Unnamed(Gaussian):
        parameter_names_in_ = np.array(["theta_0", "theta_1"], dtype=object)

    theta, X = gaussian_runs(20)
    for estimator in (Unnamed(), Gaussian()):
        coverage_score(estimator, pd.DataFrame(theta, columns=["b", "a"]), X, n_samples=5)


def test_runs_are_known_to_be_simulated_and_raise_no_alarm(npe, pairs):
    X = [x + 100 for x in pairs[1][:60]]
    coverage_score(npe, pairs[0][:60], X, n_samples=10, random_state=0)  # warnings are errors
    with pytest.warns(UserWarning, match="unlike the training"):
        npe.sample_posterior(X, 10)


def test_the_typicality_check_is_turned_off_where_it_has_a_name():
    received = []

    class Checking(Gaussian):
        def sample_posterior(self, X, n_samples, *, random_state=None, check_typicality=True):
            received.append(check_typicality)
            return super().sample_posterior(X, n_samples, random_state=random_state)

    class Foreign(Gaussian):
        def sample_posterior(self, X, n_samples, **options):
            received.append(set(options))
            return super().sample_posterior(X, n_samples, **options)

    class Unreadable(Gaussian):
        """As a compiled method may be."""

        @property
        def sample_posterior(self):
            method = SignatureLess()
            method.sample = super().sample_posterior
            return method

    class SignatureLess:
        @property
        def __signature__(self):
            raise ValueError("no signature found")

        def __call__(self, X, n_samples, **options):
            received.append(set(options))
            return self.sample(X, n_samples, **options)

    theta, X = gaussian_runs(20)
    for estimator in (Checking(), Foreign(), Unreadable()):
        coverage_score(estimator, theta, X, n_samples=5, random_state=0)
    assert received == [False, {"random_state"}, {"random_state"}]


def test_progress_is_shown_on_request(capsys):
    theta, X = gaussian_runs(100)
    coverage_score(Gaussian(), theta, X, n_samples=10, random_state=0)
    assert capsys.readouterr() == ("", "")
    coverage_score(Gaussian(), theta, X, n_samples=10, random_state=0, verbose=1)
    assert "calibration" in capsys.readouterr().err


def test_the_ranks_of_an_estimator_are_those_of_its_draws():
    """They are drawn in blocks of 50 observations, with a seed for each block."""

    class Fixed:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.broadcast_to(np.arange(n_samples)[:, None], (len(X), n_samples, 2))

    theta = np.random.default_rng(0).uniform(-1, 10, size=(120, 2))
    ranks = estimator_ranks(Fixed(), theta, theta, 9, n_jobs=None, random_state=0)
    np.testing.assert_array_equal(ranks, sbc_ranks(theta, Fixed().sample_posterior(theta, 9)))


def test_levels_are_the_probability_of_the_smallest_region_with_the_truth():
    """For one Gaussian parameter the regions of all three kinds are central intervals."""
    theta, X = gaussian_runs(200, p=1)
    model, rng = Gaussian(), np.random.default_rng(0)
    samples = model.sample_posterior(X, 20_000, random_state=0)
    log_density = -((theta - X / 2) ** 2)[:, 0], -((samples[:, :, 0] - X / 2) ** 2)
    exact = 2 * stats.norm.cdf(np.abs(theta - X / 2) / model.sd) - 1
    for kind in ("rank", "sigma", "hpd"):
        levels = credible_levels(theta, samples, kind, rng, log_density=log_density)
        np.testing.assert_allclose(levels, exact, atol=0.03)


def test_default_names_are_numbered():
    assert default_parameter_names(3) == ["theta_0", "theta_1", "theta_2"]


def test_bad_requests_say_what_was_expected():
    theta, X = gaussian_runs(20)

    class Drawless:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.zeros((len(X), 2))

    class Densityless:
        def sample_posterior(self, X, n_samples, *, random_state=None):
            return np.zeros((len(X), n_samples, 2))

    with pytest.raises(ValueError, match="20 and 19"):
        coverage_score(Gaussian(), theta, X[1:])
    with pytest.raises(ValueError, match=r"theta must have shape \(n, p\)"):
        coverage_score(Gaussian(), theta[:, 0], X)
    with pytest.raises(ValueError, match=r"\(20, n_samples, 2\); got \(20, 2\)"):
        coverage_score(Drawless(), theta, X)
    with pytest.raises(TypeError, match="Densityless has none"):
        coverage_score(Densityless(), theta, X, kind="hpd")


def test_names_are_those_given_or_those_of_the_estimator_or_numbers():
    class Named:
        parameter_names_in_ = np.array(["a", "b"], dtype=object)

    assert parameter_names(2, ("c", "d"), Named()) == ["c", "d"]
    assert parameter_names(2, None, Named()) == ["a", "b"]
    assert parameter_names(2, None, object()) == ["theta_0", "theta_1"]
    with pytest.raises(ValueError, match="names must hold 2 names"):
        parameter_names(2, ["a"])
