"""Probabilities of models against closed forms, and what a classifier of scikit-learn must do."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy import stats
from scipy.special import log_softmax, logsumexp
from sklearn.calibration import CalibrationDisplay
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.metrics import ConfusionMatrixDisplay, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict

import skbi
from skbi import JointPrior, ModelClassifier, NLEEstimator, misspecification_score

QUICK = {"max_iter": 2, "hidden_layer_sizes": (8,), "n_estimators": 2, "random_state": 0}
TIMES = np.linspace(-1, 1, 6)
NOISE_SD = 0.5
DESIGNS = {  # nested: a level, a line, a parabola
    name: np.vander(TIMES, degree + 1, increasing=True)
    for degree, name in enumerate(["level", "line", "parabola"])
}


def log_evidences(X):
    """Return the log evidence of each model, (n, 3): coefficients are N(0, 0.5^2)."""
    return np.column_stack(
        [
            stats.multivariate_normal(None, 0.25 * A @ A.T + NOISE_SD**2 * np.eye(6)).logpdf(X)
            for A in DESIGNS.values()
        ]
    )


def simulations(n, seed):
    """Return n simulations of each model."""
    rng = np.random.default_rng(seed)
    X = [0.5 * rng.normal(size=(n, A.shape[1])) @ A.T for A in DESIGNS.values()]
    return np.vstack(X) + NOISE_SD * rng.normal(size=(3 * n, 6)), np.repeat(list(DESIGNS), n)


@pytest.fixture(scope="module")
def fitted():
    return ModelClassifier(max_iter=15, n_estimators=3, random_state=0).fit(*simulations(1500, 0))


@pytest.fixture(scope="module")
def test_set():
    return simulations(300, 1)


def test_probabilities_are_those_of_bayes_rule(fitted, test_set):
    X, _ = test_set
    exact = np.exp(log_softmax(log_evidences(X), axis=1))
    found = fitted.predict_proba(X, check_typicality=False)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - exact).mean() < 0.03 * (10_000 / 4500) ** 0.5  # 0.03 at 10,000
    assert list(fitted.classes_) == ["level", "line", "parabola"]


def test_bayes_factors_are_ratios_of_evidences(fitted, test_set):
    X, _ = test_set
    exact = log_evidences(X)
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        names = fitted.classes_[[a, b]]
        found, error = fitted.log_bayes_factor(X, *names, check_typicality=False)
        log_factor = exact[:, a] - exact[:, b]
        near = np.abs(log_factor) < 3
        assert np.abs(found - log_factor)[near].mean() < 0.3
        assert np.median(error) < 0.3
        back, _ = fitted.log_bayes_factor(X, *names[::-1], check_typicality=False)
        np.testing.assert_allclose(back, -found)


def test_bayes_factors_agree_with_the_evidences_of_two_likelihoods(fitted):
    """Each likelihood is learnt from the same simulations, by another estimator."""
    rng, x = np.random.default_rng(3), simulations(1, 5)[0][1:2]
    log_z = []
    for name in ("level", "line"):
        A = DESIGNS[name]
        prior = JointPrior({f"c{j}": stats.norm(0, 0.5) for j in range(A.shape[1])})
        theta = prior.sample(2000, random_state=0)
        X = theta @ A.T + NOISE_SD * rng.normal(size=(2000, 6))
        nle = NLEEstimator(prior=prior, flow="realnvp", max_iter=5, n_estimators=1, random_state=0)
        log_z.append(float(nle.fit(theta, X).log_evidence(x)[0][0]))
    found, _ = fitted.log_bayes_factor(x[0], "level", "line")
    assert isinstance(found, float)
    assert found == pytest.approx(log_z[0] - log_z[1], abs=0.5)


def test_held_out_probabilities_are_calibrated(fitted, test_set):
    """The log loss is what the probabilities say it is, within three standard errors."""
    X, model = test_set
    log_p = fitted.predict_log_proba(X, check_typicality=False)
    entropy = -(np.exp(log_p) * log_p).sum(axis=1)
    loss = -log_p[np.arange(len(X)), np.searchsorted(fitted.classes_, model)]
    assert abs((loss - entropy).mean()) < 3 * (loss - entropy).std() / len(X) ** 0.5
    assert fitted.best_validation_score_ == pytest.approx(-loss.mean(), abs=0.15)


def test_priors_multiply_the_odds(fitted, test_set):
    X, _ = test_set
    priors = np.array([0.7, 0.2, 0.1])
    other = pickle.loads(pickle.dumps(fitted))
    other.class_prior_ = priors
    log_p = fitted.predict_log_proba(X, check_typicality=False) + np.log(3 * priors)
    np.testing.assert_allclose(
        other.predict_log_proba(X, check_typicality=False),
        log_p - logsumexp(log_p, axis=1, keepdims=True),
    )
    a, b = "parabola", "line"
    np.testing.assert_array_equal(
        other.log_bayes_factor(X, a, b, check_typicality=False),
        fitted.log_bayes_factor(X, a, b, check_typicality=False),
    )


def test_the_default_priors_are_the_shares_and_bayes_factors_do_not_depend_on_them():
    X, model = simulations(600, 2)
    kept = np.r_[:600, 600:900, 1200:1800]  # half as many lines
    options = {"max_iter": 8, "n_estimators": 2, "random_state": 0}
    uneven = ModelClassifier(**options).fit(X[kept], model[kept])
    np.testing.assert_allclose(uneven.class_prior_, [0.4, 0.2, 0.4])
    even = ModelClassifier(priors=[1 / 3] * 3, **options).fit(X[kept], model[kept])
    np.testing.assert_allclose(even.class_share_, [0.4, 0.2, 0.4])
    fresh, _ = simulations(200, 4)
    exact = log_softmax(log_evidences(fresh), axis=1)
    found = even.predict_proba(fresh, check_typicality=False)
    assert np.abs(found - np.exp(exact)).mean() < 0.06
    found = uneven.predict_proba(fresh, check_typicality=False)
    assert np.abs(found - np.exp(exact)).mean() > 0.06  # a line counts as half as probable


# ---- scikit-learn


def test_one_observation_is_answered_without_the_leading_axis(fitted, test_set):
    X, _ = test_set
    batch = fitted.predict_proba(X[:3])
    assert batch.shape == (3, 3)
    np.testing.assert_allclose(fitted.predict_proba(X[0]), batch[0], rtol=1e-6)
    assert fitted.predict(X[0]) == fitted.predict(X[:1])[0]
    assert fitted.predict_log_proba(X[0]).shape == (3,)
    assert isinstance(fitted.typicality(X[0]), float)


def test_the_displays_of_scikit_learn_show_it(test_set):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    X, model = simulations(100, 0)
    two = model != "parabola"
    fitted = ModelClassifier(**QUICK).fit(X[two], model[two])
    display = CalibrationDisplay.from_estimator(fitted, X[two], model[two], n_bins=5)
    assert len(display.prob_true) <= 5
    display = ConfusionMatrixDisplay.from_estimator(fitted, X[two], model[two])
    assert display.confusion_matrix.sum() == two.sum()
    matplotlib.pyplot.close("all")


def test_cross_validation_and_searches_by_log_loss():
    X, model = simulations(60, 0)
    search = GridSearchCV(
        ModelClassifier(summary=PCA(), **QUICK), {"summary__n_components": [1, 2]},
        scoring="neg_log_loss", cv=2, error_score="raise",
    ).fit(X, model)  # fmt: skip
    assert search.best_params_["summary__n_components"] in (1, 2)
    held_out = cross_val_predict(ModelClassifier(**QUICK), X, model, method="predict_proba", cv=3)
    assert held_out.shape == (180, 3)
    assert search.score(X, model) == pytest.approx(-log_loss(model, search.predict_proba(X)))


FORMS = {
    "sets": lambda X: X[:, :, None],
    "ragged": lambda X: [x[: 3 + i % 4, None] for i, x in enumerate(X)],
    "padded": lambda X: np.where(np.arange(6) < 3 + np.arange(len(X))[:, None] % 4, X, np.nan)[
        :, :, None
    ],
    "wide": lambda X: np.hstack([X + 0.1 * i for i in range(4)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_observations_of_all_kinds(form):
    X, model = simulations(80, 0)
    data = FORMS[form](X)
    fitted = ModelClassifier(**QUICK).fit(data, model)
    found = fitted.predict_proba(data[:5], check_typicality=False)
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    one = np.asarray(data[1])
    np.testing.assert_allclose(
        fitted.predict_proba(one[~np.isnan(one).all(axis=-1)] if one.ndim == 2 else one),
        found[1], atol=1e-5,
    )  # fmt: skip


def test_missing_entries_modules_weights_and_names():
    X, model = simulations(80, 0)
    gaps = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    masked = ModelClassifier(missing="mask", **QUICK).fit(gaps, model)
    assert masked.predict_proba(gaps[:4], check_typicality=False).shape == (4, 3)
    module = ModelClassifier(summary=torch.nn.Linear(6, 2), **QUICK).fit(X, model)
    assert module.predict(X[:4]).shape == (4,)
    frame = pd.DataFrame(X, columns=[f"t{t:.1f}" for t in TIMES])
    named = ModelClassifier(**QUICK).fit(frame, model)
    assert named.feature_names_in_.tolist() == frame.columns.tolist()
    weights = np.where(model == "line", 2.0, 1.0)
    weighted = ModelClassifier(**QUICK).fit(X, model, weights)
    np.testing.assert_allclose(weighted.class_prior_, [0.25, 0.5, 0.25])


def test_files_are_the_classifier(fitted, test_set, tmp_path):
    X, _ = test_set
    skops.io.dump(fitted, tmp_path / "classifier.skops")
    opened = skops.io.load(tmp_path / "classifier.skops", trusted=skbi.TRUSTED_TYPES)
    for twin in (opened, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(twin.predict_proba(X[:9]), fitted.predict_proba(X[:9]))
        assert twin.log_bayes_factor(X[0], "line", "level") == fitted.log_bayes_factor(
            X[0], "line", "level"
        )


def test_training_goes_on_with_the_same_models():
    X, model = simulations(80, 0)
    fitted = ModelClassifier(warm_start=True, **QUICK).fit(X, model)
    before = fitted.predict_proba(X[:3])
    with pytest.raises(ValueError, match=r"same models, \['level', 'line', 'parabola'\]; got"):
        fitted.fit(X[:160], model[:160])
    np.testing.assert_array_equal(fitted.predict_proba(X[:3]), before)
    fitted.fit(X, model)
    assert len(fitted.loss_curve_) == 4


def test_observations_unlike_all_models_are_reported(fitted, test_set):
    X, _ = test_set
    with pytest.warns(UserWarning, match="unlike the training simulations") as record:
        fitted.predict(X[:2] + 20)
    assert record[0].filename == __file__
    assert misspecification_score(fitted, X[0] + 20) < 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict_proba(X[:2] + 20, check_typicality=False)


X_BAD, Y_BAD = simulations(10, 0)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, (X_BAD, Y_BAD[:5]), "inconsistent numbers of samples"),
        ({}, (X_BAD, np.linspace(0, 1, 30)), "Unknown label type"),
        ({}, (X_BAD[:10], Y_BAD[:10]), r"at least two.*got 1 class\(es\).*\['level'\]"),
        ({}, (X_BAD, Y_BAD, np.r_[np.zeros(10), np.ones(20)]), r"\['line', 'parabola'\]"),
        ({}, (np.full_like(X_BAD, np.nan), Y_BAD), "missing values"),
        ({"priors": [0.5, 0.5]}, (X_BAD, Y_BAD), "each of the 3 models"),
        ({"priors": [0.5, 0.5, 0.5]}, (X_BAD, Y_BAD), "sum to one"),
        ({"priors": [1.5, -0.5, 0.0]}, (X_BAD, Y_BAD), "probability for each"),
        ({"max_iter": 0}, (X_BAD, Y_BAD), "'max_iter' parameter of ModelClassifier"),
        ({"summary": "mean"}, (X_BAD, Y_BAD), "'summary' parameter of ModelClassifier"),
    ],
)
def test_bad_input_says_what_was_expected(options, data, message):
    with pytest.raises(ValueError, match=message):
        ModelClassifier(**{**QUICK, **options}).fit(*data)


def test_questions_that_cannot_be_answered(fitted):
    with pytest.raises(NotFittedError):
        ModelClassifier().predict(X_BAD)
    with pytest.raises(NotFittedError):
        ModelClassifier().log_bayes_factor(X_BAD, "line", "level")
    with pytest.raises(ValueError, match=r"'cubic' is none of the models \['level'"):
        fitted.log_bayes_factor(X_BAD, "cubic", "level")
    with pytest.raises(ValueError, match="expecting 6 features"):
        fitted.predict_proba(X_BAD[:, :5])
