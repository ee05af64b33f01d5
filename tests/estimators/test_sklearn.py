"""scikit-learn's own checks, and model selection by position."""

from functools import partial

import numpy as np
import pytest
import sklearn
from scipy import stats
from scipy.special import expit
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
    validation_curve,
)
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

from skbi import (
    CMPEEstimator,
    DoubleMoonSimulator,
    FMPEEstimator,
    FunctionSimulator,
    JointPrior,
    ModelClassifier,
    NLEEstimator,
    NPEEstimator,
    NREEstimator,
    coverage_score,
)

QUICK_NET = {"max_iter": 2, "hidden_layer_sizes": (8,), "random_state": 0}
QUICK = {**QUICK_NET, "n_transforms": 1}
THETA_FIRST = "the data are the second argument of fit: theta stands first"
EXPECTED = {
    "check_fit_score_takes_y": THETA_FIRST,
    "check_n_features_in": THETA_FIRST,
    "check_n_features_in_after_fitting": THETA_FIRST,
    "check_sample_weight_equivalence_on_dense_data": "the data are not called y",
}


class SwappedNPE(NPEEstimator):
    """Takes the data first, as the checks do."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(y, X, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(y, X, sample_weight)


class SwappedNLE(NLEEstimator):
    """Takes the data first, as the checks do."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(y, X, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(y, X, sample_weight)


class SwappedNRE(NREEstimator):
    """Takes the data first, as the checks do."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(y, X, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(y, X, sample_weight)


class SwappedFMPE(FMPEEstimator):
    """Takes the data first, as the checks do."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(y, X, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(y, X, sample_weight)


class SwappedCMPE(CMPEEstimator):
    """Takes the data first, as the checks do."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(y, X, sample_weight)

    def score(self, X, y, sample_weight=None):
        return super().score(y, X, sample_weight)


class AnyTheta(DoubleMoonSimulator):
    """Takes theta of any width, squeezed into the ranges of d, sigma and t."""

    def _check(self, theta, *, reset):
        theta = validate_data(self, theta, dtype=np.float64, reset=reset)
        return expit(np.resize(theta.T, (3, len(theta))).T)


CHECKED = [
    SwappedNPE(**QUICK), SwappedNLE(**QUICK), SwappedNRE(**QUICK_NET), SwappedFMPE(**QUICK_NET),
    SwappedCMPE(**QUICK_NET), ModelClassifier(n_estimators=1, **QUICK_NET), AnyTheta(n_points=2),
    FunctionSimulator(np.square), FunctionSimulator(np.square, vectorized=True),
]  # fmt: skip


def expected_failures(estimator):
    """Return what a classifier of models does otherwise than classifiers of scikit-learn."""
    if not isinstance(estimator, ModelClassifier):
        return {}
    return {
        "check_fit2d_predict1d": "one axis fewer is one observation, here as everywhere",
        "check_sample_weight_equivalence_on_dense_data": "minibatches of weighted rows differ",
    }


# some checks have targets of two values, or repeat rows
@pytest.mark.filterwarnings("ignore:One value is that of", "ignore:Feature 0 is exactly")
@parametrize_with_checks(CHECKED, expected_failed_checks=expected_failures)
def test_every_check_passes_with_the_arguments_swapped(estimator, check):
    check(estimator)


def failures(estimator):
    """Return the checks that fail, with their errors."""
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    return {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}


@pytest.mark.filterwarnings("ignore")  # of the checks that fail
@pytest.mark.parametrize(
    "estimator",
    [
        NPEEstimator(**QUICK),
        NLEEstimator(**QUICK),
        *(kind(**QUICK_NET) for kind in (NREEstimator, FMPEEstimator, CMPEEstimator)),
    ],
)
def test_only_the_order_of_the_arguments_fails_checks(estimator):
    assert set(failures(estimator)) == set(EXPECTED)


@pytest.mark.filterwarnings("ignore")  # of the checks that fail
def test_only_theta_of_another_shape_or_range_fails_checks_of_the_simulator():
    for error in failures(DoubleMoonSimulator(n_points=2)).values():
        cause = str(error) + str(error.__cause__)
        assert "columns d, sigma, t" in cause or "must lie in [0, 1]" in cause


# ---- model selection


def vectors(n=80):
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(n, 1))
    return theta, theta + 0.5 * rng.normal(size=(n, 2))


def sets(n=80):
    theta, _ = vectors(n)
    return theta, theta[:, None] + np.random.default_rng(1).normal(size=(n, 4, 2))


def ragged(n=80):
    theta, X = sets(n)
    return theta, [x[: 1 + i % 4] for i, x in enumerate(X)]


def objects(n=80):
    theta, X = ragged(n)
    array = np.empty(n, dtype=object)
    array[:] = X
    return theta, array


KINDS = [vectors, sets, ragged, objects]
PRIOR = JointPrior({"mu": stats.norm()})
STRICT = {"cv": 2, "error_score": "raise"}
GRID = {"max_iter": [1, 2]}
ESTIMATORS = [
    NPEEstimator(prior=PRIOR, **QUICK), NLEEstimator(prior=PRIOR, **QUICK),
    NREEstimator(prior=PRIOR, **QUICK_NET), FMPEEstimator(prior=PRIOR, **QUICK_NET),
    CMPEEstimator(prior=PRIOR, **QUICK_NET),
]  # fmt: skip
NAMES = ["NPE", "NLE", "NRE", "FMPE", "CMPE"]
estimators = pytest.mark.parametrize("estimator", ESTIMATORS, ids=NAMES)


@pytest.fixture(params=[False, True], ids=["", "routing"])
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield


def search_finds_the_best(search, estimator, data, **options):
    theta, X = data()
    found = search(estimator, GRID, **STRICT, **options).fit(theta, X)
    assert found.best_params_["max_iter"] in (1, 2)
    best = found.best_estimator_
    assert found.score(theta, X) == best.score(theta, X)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


@estimators
@pytest.mark.parametrize("data", KINDS)
def test_a_grid_is_searched(estimator, data, routing):
    search_finds_the_best(GridSearchCV, estimator, data)


@estimators
@pytest.mark.parametrize("data", [vectors, ragged])
@pytest.mark.parametrize(
    ("search", "options"),
    [
        (RandomizedSearchCV, {"n_iter": 2}),
        (HalvingGridSearchCV, {"min_resources": 20}),
    ],
)
def test_other_searches(estimator, data, search, options):
    search_finds_the_best(search, estimator, data, random_state=0, **options)


@estimators
@pytest.mark.parametrize("data", KINDS)
def test_cross_validation_scores_held_out_pairs(estimator, data, routing):
    theta, X = data()
    scores = cross_val_score(estimator, theta, X, **STRICT)
    found = cross_validate(estimator, theta, X, return_estimator=True, **STRICT)
    np.testing.assert_array_equal(found["test_score"], scores)
    half = len(theta) // 2  # KFold without shuffling: the first half is tested first
    first = found["estimator"][0].score(theta[:half], X[:half])
    assert scores[0] == first


@estimators
@pytest.mark.parametrize("data", KINDS)
def test_curves_and_splits(estimator, data):
    theta, X = data()
    sizes, train, test = learning_curve(estimator, theta, X, train_sizes=[0.5, 1.0], **STRICT)
    assert train.shape == test.shape == (len(sizes), 2)
    options = {"param_name": "max_iter", "param_range": [1, 2]}
    train, test = validation_curve(estimator, theta, X, **options, **STRICT)
    assert np.isfinite([train, test]).all()
    parts = train_test_split(theta, X, test_size=0.25, random_state=0)
    assert [len(part) for part in parts] == [60, 20, 60, 20]
    clone(estimator).fit(parts[0], parts[2])


@estimators
def test_weights_are_routed(estimator):
    theta, X = vectors()
    weights = np.arange(80.0) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        weighted = clone(estimator).set_fit_request(sample_weight=True)
        weighted.set_score_request(sample_weight=True)
        found = cross_validate(
            weighted, theta, X, params={"sample_weight": weights}, return_estimator=True, **STRICT
        )
    half = slice(40)  # tested first
    expected = clone(estimator).fit(theta[40:], X[40:], weights[40:])
    score = expected.score(theta[half], X[half], weights[half])
    assert found["test_score"][0] == pytest.approx(score)
    assert found["estimator"][0].loss_curve_ == expected.loss_curve_


def test_calibration_scores_a_search_in_parallel():
    theta, X = objects(200)
    scoring = partial(coverage_score, n_samples=50, random_state=0)
    search = GridSearchCV(ESTIMATORS[0], GRID, scoring=scoring, n_jobs=2, **STRICT).fit(theta, X)
    scores = search.cv_results_["mean_test_score"]
    again = GridSearchCV(ESTIMATORS[0], GRID, scoring=scoring, **STRICT).fit(theta, X)
    assert ((scores > 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(scores, again.cv_results_["mean_test_score"])


@estimators
def test_parameters_are_set_cloned_and_shown(estimator):
    copy = clone(estimator).set_params(max_iter=7)
    one, two = copy.get_params(), {**estimator.get_params(), "max_iter": 7}
    assert repr(one.pop("prior")) == repr(two.pop("prior"))
    assert one == two
    assert type(estimator).__name__ in estimator._repr_html_()
