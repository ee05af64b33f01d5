"""What training starts from: a line with its errors at new points, and Bayes' rule for classes."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from skbi.training.start import Discriminant, regress


def test_regression_finds_the_line_and_whitens_its_residuals():
    rng = np.random.default_rng(0)
    x, slopes, spread = rng.normal(size=(5000, 3)), rng.normal(size=(3, 2)), [[0.5, 0.3], [0, 0.2]]
    y = 5 + x @ slopes + rng.normal(size=(5000, 2)) @ spread
    found, intercept, root = regress(x, y)
    np.testing.assert_allclose(found, slopes, atol=0.03)
    np.testing.assert_allclose(intercept, 5, atol=0.03)
    np.testing.assert_array_equal(root, np.triu(root))
    covariance = np.cov((y - x @ found - intercept) @ root, rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(2), atol=0.02)


@pytest.mark.parametrize("n_features", [3, 80, 150, 400])
def test_regression_estimates_its_errors_at_new_points(n_features):
    rng, variances = np.random.default_rng(0), []
    for _ in range(20):
        x, slopes = rng.normal(size=(1200, n_features)), rng.normal(size=(n_features, 2))
        y = x @ slopes + rng.normal(size=(1200, 2))
        found, intercept, root = regress(x[:200], y[:200])
        errors = (y - x @ found - intercept) @ root
        variances.append(errors[200:].var(axis=0))
    np.testing.assert_allclose(np.mean(variances, axis=0), 1, atol=0.15)


MEANS = np.array([[0.0, 0.0], [1.0, -1.0], [0.5, 2.0]])
COVARIANCES = np.array(
    [[[1.0, 0.3], [0.3, 0.5]], [[0.2, 0.0], [0.0, 2.0]], [[1.0, -0.6], [-0.6, 1.0]]]
)
SHARES = np.array([0.5, 0.2, 0.3])


def bayes(y, covariances):
    log_p = [stats.multivariate_normal(*a).logpdf(y) for a in zip(MEANS, covariances, strict=True)]
    return log_softmax(np.transpose(log_p) + np.log(SHARES), axis=1)


def log_probs(rule, y):
    weight, bias, quadratic = rule.logits()
    forms = [[row @ q @ row for q in quadratic] for row in y]
    return log_softmax(y @ weight.T + bias + forms, axis=1)


@pytest.mark.parametrize("own", [False, True])
def test_logits_are_those_of_bayes_rule(own):
    y = np.random.default_rng(0).normal(size=(20, 2))
    covariances = COVARIANCES if own else np.repeat(COVARIANCES[:1], 3, axis=0)
    precisions = np.linalg.inv(COVARIANCES) if own else None
    rule = Discriminant(MEANS, np.log(SHARES), np.linalg.inv(COVARIANCES[0]), precisions)
    np.testing.assert_allclose(log_probs(rule, y), bayes(y, covariances))
    k = np.arange(20) % 3
    assert rule.score(y, k) == pytest.approx(bayes(y, covariances)[np.arange(20), k].mean())


@pytest.mark.parametrize("own", [False, True])
def test_classes_have_covariances_of_their_own_where_that_predicts_better(own):
    rng, n = np.random.default_rng(0), 20_000
    covariances = COVARIANCES if own else np.repeat(COVARIANCES[:1], 3, axis=0)
    k = rng.choice(3, size=n, p=SHARES)
    roots = np.linalg.cholesky(covariances)
    y = MEANS[k] + np.einsum("nab,nb->na", roots[k], rng.normal(size=(n, 2)))
    common = Discriminant(MEANS, np.log(SHARES), np.linalg.inv(COVARIANCES[0]))
    rule = common.with_own_covariances(y, k, rng.integers(n, size=n))
    found, exact = np.exp(log_probs(rule, y[:500])), np.exp(bayes(y[:500], covariances))
    assert 0.5 * np.abs(found - exact).sum(axis=1).mean() < 0.01  # sds of covariances are 1 %
